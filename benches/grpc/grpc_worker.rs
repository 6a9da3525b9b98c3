//! An AiInference worker that does nothing but send chunks, for measuring what stands in front of it.
//!
//! The same chunks at the same pace as the rig's engine, of which its prompt tells it: `@T` and 19 digits of the monotonic
//! clock's nanoseconds in each, so that whoever reads it knows how long it took; without an interval each chunk gives way
//! to the others. It listens on 127.0.0.1, on one port or many. Its timer has steps of 1 ms.
//!
//! `grpc_worker FIRST_PORT-LAST_PORT MODEL`

use std::collections::HashMap;
use std::error::Error;
use std::net::Ipv4Addr;
use std::pin::Pin;

use futures_util::stream::unfold;
use gateway_benches::wire::clock::now;
use gateway_benches::wire::script::Script;
use gateway_transport_grpc::proto::cy_llm::ai_inference_server::{AiInference, AiInferenceServer};
use gateway_transport_grpc::proto::cy_llm::{
    ControlMessage, StreamPredictRequest, StreamPredictResponse, WorkerHealthRequest, WorkerHealthResponse,
};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

#[derive(Clone)]
struct Worker {
    model: String,
}

type Chunks = Pin<Box<dyn Stream<Item = Result<StreamPredictResponse, Status>> + Send>>;

#[tonic::async_trait]
impl AiInference for Worker {
    type StreamPredictStream = Chunks;

    async fn stream_predict(
        &self,
        request: Request<Streaming<StreamPredictRequest>>,
    ) -> Result<Response<Chunks>, Status> {
        let asked = request.into_inner().message().await?;
        let asked = asked.ok_or_else(|| Status::invalid_argument("the stream has no request"))?;
        let trace_id = asked.metadata.unwrap_or_default().trace_id;
        let script = Script::find(asked.prompt.as_bytes()).unwrap_or_default();
        let Script { chunks, interval, delay } = script;
        let began = Instant::now() + delay;
        let answer = unfold(0, move |index| {
            let trace_id = trace_id.clone();
            async move {
                if index > chunks {
                    return None;
                }
                if interval.is_zero() && delay.is_zero() {
                    tokio::task::yield_now().await;
                } else {
                    sleep_until(began + interval * index).await;
                }
                let end_of_stream = index == chunks;
                let chunk = if end_of_stream { String::new() } else { format!("@T{:019} ", now()) };
                let message =
                    StreamPredictResponse { trace_id, chunk, end_of_stream, index, ..Default::default() };
                Some((Ok(message), index + 1))
            }
        });
        Ok(Response::new(Box::pin(answer)))
    }

    async fn control(&self, request: Request<ControlMessage>) -> Result<Response<ControlMessage>, Status> {
        let ControlMessage { trace_id, command, .. } = request.into_inner();
        let payload = [("status", "ok"), ("message", ""), ("models", &self.model)];
        let payload = payload.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Ok(Response::new(ControlMessage { trace_id, command: format!("{command}_response"), payload }))
    }

    async fn health(
        &self,
        _: Request<WorkerHealthRequest>,
    ) -> Result<Response<WorkerHealthResponse>, Status> {
        Ok(Response::new(WorkerHealthResponse { healthy: true, metrics: HashMap::new() }))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let mut next = |what: &str| words.next().ok_or_else(|| format!("{what} is missing"));
    let ports = next("FIRST_PORT-LAST_PORT")?;
    let worker = Worker { model: next("MODEL")? };
    let (first, last) = ports.split_once('-').unwrap_or((&ports, &ports));
    let mut serving = JoinSet::new();
    for port in first.parse()?..=last.parse()? {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        serving.spawn(serve(listener, worker.clone()));
    }
    println!("listening");
    while let Some(ended) = serving.join_next().await {
        ended??;
    }
    Ok(())
}

async fn serve(listener: TcpListener, worker: Worker) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = TowerToHyperService::new(AiInferenceServer::new(worker.clone()));
        let connection = http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(16_384)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}
