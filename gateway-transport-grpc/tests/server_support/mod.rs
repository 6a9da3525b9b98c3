//! A gateway with a scripted runner behind a gRPC server, in this process or over a socket.
#![allow(dead_code, reason = "each test file uses a part")]

use std::convert::Infallible;

use gateway_core::{ModelId, RunnerId, RunnerKey, RunnerSpec, RunnerStatus};
use gateway_http::{Gateway, GatewayBuilder};
use gateway_testkit::{MockEngine, Script, Seen};
use gateway_transport_grpc::GrpcServer;
use gateway_transport_grpc::proto::cy_llm::ai_inference_client::AiInferenceClient;
use gateway_transport_grpc::proto::cy_llm::{StreamPredictRequest, StreamPredictResponse};
use http::{Request, Response};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::MetadataValue;
use tonic::{Status, Streaming};

pub(crate) const CLIENT: &str = "client-secret";
pub(crate) const ADMIN: &str = "admin-secret";

pub(crate) fn builder() -> GatewayBuilder {
    Gateway::builder().client_tokens([CLIENT]).admin_tokens([ADMIN])
}

pub(crate) fn join(gateway: &Gateway, id: &str, slots: u32, engine: &MockEngine) -> RunnerKey {
    let spec = RunnerSpec::new(RunnerId::new(id).unwrap()).slots(slots);
    let status = RunnerStatus::serving([ModelId::new("m").unwrap()]);
    gateway.dispatcher().registry().join(spec, status, engine.link())
}

/// A gateway with one runner `r1` that serves the model `m`, and a server around it.
pub(crate) fn serve(engine: &MockEngine) -> (Gateway, GrpcServer) {
    let gateway = builder().build().unwrap();
    join(&gateway, "r1", 4, engine);
    let server = GrpcServer::builder(gateway.clone()).build().unwrap();
    (gateway, server)
}

/// An engine that answers with these words, and how many tokens they were.
pub(crate) fn words(words: &'static [&'static str]) -> MockEngine {
    MockEngine::new(move |_: &Seen| sse(words))
}

pub(crate) fn sse(words: &[&str]) -> Script {
    let chunk = |word: &&str| {
        serde_json::json!({"id": "c", "choices": [{"index": 0, "text": word, "finish_reason": null}]})
            .to_string()
    };
    let usage = serde_json::json!({"choices": [], "usage": {"completion_tokens": words.len()}}).to_string();
    let end = serde_json::json!({"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}).to_string();
    Script::sse(words.iter().map(chunk).chain([end, usage]))
}

pub(crate) fn asked(prompt: &str) -> StreamPredictRequest {
    StreamPredictRequest { model_id: "m".into(), prompt: prompt.into(), ..StreamPredictRequest::default() }
}

pub(crate) fn as_client<T>(message: T) -> tonic::Request<T> {
    with_token(message, CLIENT)
}

pub(crate) fn with_token<T>(message: T, token: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let token: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", token);
    request
}

/// A call with these requests, which are then all.
pub(crate) async fn predict(
    server: &GrpcServer,
    requests: Vec<StreamPredictRequest>,
) -> Result<Streaming<StreamPredictResponse>, Status> {
    let mut client = AiInferenceClient::new(server.clone());
    let answer = client.stream_predict(as_client(tokio_stream::iter(requests))).await?;
    Ok(answer.into_inner())
}

/// All messages, and the status if it is not OK.
pub(crate) async fn all(
    mut answers: Streaming<StreamPredictResponse>,
) -> (Vec<StreamPredictResponse>, Option<Status>) {
    let mut messages = Vec::new();
    loop {
        match answers.message().await {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, None),
            Err(status) => return (messages, Some(status)),
        }
    }
}

/// The status with which a call fails, wherever it says so.
pub(crate) async fn failure(server: &GrpcServer, request: StreamPredictRequest) -> Status {
    match predict(server, vec![request]).await {
        Ok(answers) => all(answers).await.1.expect("a failure"),
        Err(status) => status,
    }
}

pub(crate) fn text(messages: &[StreamPredictResponse]) -> String {
    messages.iter().map(|message| message.chunk.as_str()).collect()
}

/// The server on a socket of its own.
pub(crate) struct Socket {
    pub(crate) address: std::net::SocketAddr,
    _accepting: AbortOnDropHandle<()>,
}

impl Socket {
    pub(crate) async fn serve<S, B>(service: S) -> Self
    where
        S: tower_service::Service<Request<hyper::body::Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<gateway_core::BoxError>,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((io, _)) = listener.accept().await {
                let service = TowerToHyperService::new(service.clone());
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                connections.spawn(async move {
                    let _ = server.serve_connection(TokioIo::new(io), service).await;
                });
            }
        });
        Self { address, _accepting: AbortOnDropHandle::new(accepting) }
    }

    pub(crate) async fn connect(&self) -> Connection {
        let io = TokioIo::new(TcpStream::connect(self.address).await.unwrap());
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Connection { sender, _driver: std::sync::Arc::new(AbortOnDropHandle::new(driver)) }
    }
}

/// One connection to a [`Socket`], closed with its last clone.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: SendRequest<tonic::body::Body>,
    _driver: std::sync::Arc<AbortOnDropHandle<()>>,
}

impl tower_service::Service<Request<tonic::body::Body>> for Connection {
    type Response = Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Response<hyper::body::Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<tonic::body::Body>) -> Self::Future {
        let path = request.uri().path_and_query().unwrap().as_str();
        *request.uri_mut() = format!("http://localhost{path}").parse().unwrap();
        Box::pin(self.sender.send_request(request))
    }
}
