//! The generated services over sockets of our own.

use std::path::{Path, PathBuf};
use std::pin::Pin;

use gateway_transport_grpc::Dialect;
use gateway_transport_grpc::proto::{ai_inference, cy_llm};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::{Asked, Reply, Said, Worker, lock};

/// A worker that runs. Dropping it is as abrupt as killing it.
pub(crate) struct Served {
    address: String,
    socket: Option<PathBuf>,
    _accepting: JoinSet<()>,
}

impl Served {
    pub(crate) async fn tcp(worker: Worker, dialect: Dialect, on: &str) -> Self {
        let listener = TcpListener::bind(on).await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                while connections.try_join_next().is_some() {}
                connections.spawn(serve(stream, worker.clone(), dialect));
            }
        });
        Self { address, socket: None, _accepting: accepting }
    }

    pub(crate) async fn unix(worker: Worker, dialect: Dialect, path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("a free path");
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(serve(stream, worker.clone(), dialect));
            }
        });
        let address = format!("unix:{}", path.display());
        Self { address, socket: Some(path.to_owned()), _accepting: accepting }
    }

    /// As a link takes it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(path) = &self.socket {
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn serve<T>(io: T, worker: Worker, dialect: Dialect)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    const LIMIT: usize = 128 * 1024 * 1024;
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.max_concurrent_streams(worker.streams)
        .max_pending_accept_reset_streams(16_384)
        .max_local_error_reset_streams(None);
    let io = TokioIo::new(io);
    let served = match dialect {
        Dialect::Packaged => {
            let service = cy_llm::ai_inference_server::AiInferenceServer::new(worker);
            let service = service.max_decoding_message_size(LIMIT).max_encoding_message_size(LIMIT);
            http.serve_connection(io, TowerToHyperService::new(service)).await
        }
        Dialect::Plain => {
            let service = ai_inference::ai_inference_server::AiInferenceServer::new(worker);
            let service = service.max_decoding_message_size(LIMIT).max_encoding_message_size(LIMIT);
            http.serve_connection(io, TowerToHyperService::new(service)).await
        }
    };
    drop(served);
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn predict(worker: &Worker, asked: Asked) -> ReceiverStream<Result<Said, Status>> {
    lock(&worker.seen).push(asked.clone());
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn((worker.predict)(asked, Reply(sender)));
    ReceiverStream::new(receiver)
}

fn let_in(worker: &Worker, call: &tonic::metadata::MetadataMap) -> Result<(), Status> {
    let Some(token) = &worker.token else { return Ok(()) };
    match call.get("authorization").and_then(|value| value.to_str().ok()) {
        Some(shown) if shown == format!("Bearer {token}") => Ok(()),
        _ => Err(Status::unauthenticated("no valid token")),
    }
}

macro_rules! serve_as {
    ($proto:ident, $number:ty, $metadata:ident) => {
        #[tonic::async_trait]
        impl $proto::ai_inference_server::AiInference for Worker {
            type StreamPredictStream = Answers<$proto::StreamPredictResponse>;

            async fn stream_predict(
                &self,
                request: Request<Streaming<$proto::StreamPredictRequest>>,
            ) -> Result<Response<Self::StreamPredictStream>, Status> {
                let call = request.metadata().clone();
                let_in(self, &call)?;
                let first = request.into_inner().message().await?;
                let first = first.ok_or_else(|| Status::invalid_argument("no request"))?;
                let generation = first.generation.unwrap_or_default();
                let mut asked = Asked {
                    model_id: first.model_id,
                    prompt: first.prompt,
                    adapter: first.adapter,
                    priority: first.priority,
                    max_new_tokens: generation.max_new_tokens as u32,
                    temperature: generation.temperature as f64,
                    top_p: generation.top_p as f64,
                    repetition_penalty: generation.repetition_penalty as f64,
                    trace_id: String::new(),
                    tenant: String::new(),
                    player_id: String::new(),
                    locale: String::new(),
                    extra: Default::default(),
                    worker_hint: first.worker_hint,
                    call,
                };
                $metadata(&mut asked, first.metadata.unwrap_or_default());
                let mut index: $number = 0;
                let trace_id = asked.trace_id.clone();
                let said = predict(self, asked).map(move |said| {
                    let said = said?;
                    index += 1;
                    Ok($proto::StreamPredictResponse {
                        trace_id: trace_id.clone(),
                        chunk: said.chunk,
                        end_of_stream: said.is_last,
                        index: index - 1,
                        ttft_ms: 1.0,
                        tokens_per_sec: 2.0,
                    })
                });
                Ok(Response::new(Box::pin(said)))
            }

            async fn control(
                &self,
                request: Request<$proto::ControlMessage>,
            ) -> Result<Response<$proto::ControlMessage>, Status> {
                let_in(self, request.metadata())?;
                let asked = request.into_inner();
                let (command, payload) = (self.control)(&asked.command, &asked.payload)?;
                Ok(Response::new($proto::ControlMessage { trace_id: asked.trace_id, command, payload }))
            }

            async fn health(
                &self,
                _: Request<$proto::WorkerHealthRequest>,
            ) -> Result<Response<$proto::WorkerHealthResponse>, Status> {
                let (healthy, metrics) = lock(&self.health).clone()?;
                Ok(Response::new($proto::WorkerHealthResponse { healthy, metrics }))
            }
        }
    };
}

serve_as!(cy_llm, u32, all_of_it);
serve_as!(ai_inference, i32, only_the_trace);

fn all_of_it(asked: &mut Asked, metadata: cy_llm::StreamMetadata) {
    asked.trace_id = metadata.trace_id;
    asked.tenant = metadata.tenant;
    asked.player_id = metadata.player_id;
    asked.locale = metadata.locale;
    asked.extra = metadata.extra;
}

fn only_the_trace(asked: &mut Asked, metadata: ai_inference::StreamMetadata) {
    asked.trace_id = metadata.trace_id;
}
