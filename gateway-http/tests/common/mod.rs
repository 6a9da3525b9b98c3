//! A runner in this process, and what it takes to send requests to a gateway without a server.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use gateway_core::{
    Claim, Command, CommandReply, LinkAbilities, LinkBody, LinkDescription, LinkError, LinkRequest,
    LinkResponse, ModelId, RunnerId, RunnerKey, RunnerLink, RunnerSpec, RunnerStatus,
};
use gateway_http::{Gateway, GatewayBody, GatewayBuilder};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

pub(crate) const CLIENT: &str = "client-secret";
pub(crate) const ADMIN: &str = "admin-secret";

type Answering = Pin<Box<dyn Future<Output = Result<LinkResponse, LinkError>> + Send>>;
type Handler = Box<dyn Fn(Seen) -> Answering + Send + Sync>;

/// What reached the runner.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: http::Method,
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) extensions: usize,
    /// On whose account it is, as links are told.
    pub(crate) claim: Option<Claim>,
}

/// A runner whose answers are a closure's.
pub(crate) struct Mock {
    handler: Handler,
    pub(crate) seen: Mutex<Vec<Seen>>,
    pub(crate) commands: Mutex<Vec<Command>>,
    pub(crate) replies: Mutex<VecDeque<Result<CommandReply, LinkError>>>,
    pub(crate) closed: CancellationToken,
}

impl Mock {
    pub(crate) fn new<F, A>(handler: F) -> Arc<Self>
    where
        F: Fn(Seen) -> A + Send + Sync + 'static,
        A: Future<Output = Result<LinkResponse, LinkError>> + Send + 'static,
    {
        Arc::new(Self {
            handler: Box::new(move |seen| Box::pin(handler(seen))),
            seen: Mutex::default(),
            commands: Mutex::default(),
            replies: Mutex::default(),
            closed: CancellationToken::new(),
        })
    }

    /// Answers everything with a small JSON object.
    pub(crate) fn ok() -> Arc<Self> {
        Self::new(|_| async { Ok(json(200, r#"{"ok":true}"#)) })
    }

    /// Answers with what is sent on the returned channel, as an event stream.
    pub(crate) fn stream(content_type: &'static str) -> (Arc<Self>, mpsc::Sender<Result<Bytes, LinkError>>) {
        let (send, receive) = mpsc::channel(64);
        let receive = Mutex::new(Some(receive));
        let mock = Self::new(move |_| {
            let receive = receive.lock().unwrap().take();
            async move {
                let chunks = receive.ok_or(LinkError::lost("one stream only"))?;
                let mut response = Response::new(LinkBody::new(Chunks(chunks)));
                response.headers_mut().insert("content-type", http::HeaderValue::from_static(content_type));
                Ok(response)
            }
        });
        (mock, send)
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().expect("the runner saw nothing").clone()
    }
}

#[async_trait]
impl RunnerLink for Mock {
    fn describe(&self) -> LinkDescription {
        LinkDescription { transport: "mock", address: Some("http://192.0.2.7:1".into()) }
    }

    fn abilities(&self) -> LinkAbilities {
        LinkAbilities::NONE.with_claims()
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(LinkError::request_body)?.to_bytes();
        let seen = Seen {
            method: parts.method,
            uri: parts.uri.to_string(),
            headers: parts.headers,
            body,
            extensions: parts.extensions.len(),
            claim: parts.extensions.get().cloned(),
        };
        self.seen.lock().unwrap().push(seen.clone());
        tokio::select! {
            answer = (self.handler)(seen) => answer,
            () = self.closed.cancelled() => Err(LinkError::lost("closed")),
        }
    }

    async fn command(&self, command: Command) -> Result<CommandReply, LinkError> {
        self.commands.lock().unwrap().push(command.clone());
        let reply = self.replies.lock().unwrap().pop_front();
        reply.unwrap_or(Err(LinkError::unsupported(command.name())))
    }

    fn close(&self) {
        self.closed.cancel();
    }
}

/// A body that gives what comes over a channel.
pub(crate) struct Chunks(pub(crate) mpsc::Receiver<Result<Bytes, LinkError>>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}

pub(crate) fn json(status: u16, body: &'static str) -> LinkResponse {
    let mut response = Response::new(LinkBody::full(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

pub(crate) fn model(name: &str) -> ModelId {
    ModelId::new(name).unwrap()
}

/// A gateway with both kinds of tokens.
pub(crate) fn builder() -> GatewayBuilder {
    Gateway::builder().client_tokens([CLIENT]).admin_tokens([ADMIN])
}

/// Joins a runner that serves `models`.
pub(crate) fn join(gateway: &Gateway, id: &str, models: &[&str], link: &Arc<Mock>) -> RunnerKey {
    let status = RunnerStatus::serving(models.iter().map(|name| model(name)));
    join_with(gateway, RunnerSpec::new(RunnerId::new(id).unwrap()), status, link)
}

pub(crate) fn join_with(
    gateway: &Gateway,
    spec: RunnerSpec,
    status: RunnerStatus,
    link: &Arc<Mock>,
) -> RunnerKey {
    gateway.dispatcher().registry().join(spec, status, link.clone())
}

/// A gateway with one runner `r1` that serves the model `m`.
pub(crate) fn with_runner(link: &Arc<Mock>) -> Gateway {
    let gateway = builder().build().unwrap();
    join(&gateway, "r1", &["m"], link);
    gateway
}

pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).unwrap()
}

pub(crate) fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(path).body(Full::new(body.into())).unwrap()
}

pub(crate) fn chat(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    as_client(post("/v1/chat/completions", body))
}

pub(crate) fn as_client<B>(request: Request<B>) -> Request<B> {
    with_key(request, CLIENT)
}

pub(crate) fn as_admin<B>(request: Request<B>) -> Request<B> {
    with_key(request, ADMIN)
}

pub(crate) fn with_key<B>(mut request: Request<B>, key: &str) -> Request<B> {
    let value = format!("Bearer {key}").parse().unwrap();
    request.headers_mut().insert("authorization", value);
    request
}

pub(crate) async fn send<B>(gateway: &Gateway, request: Request<B>) -> Response<GatewayBody>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<gateway_core::BoxError>,
{
    let answered = gateway.clone().call(request).await;
    answered.unwrap_or_else(|never| match never {})
}

/// An answer that has been read to its end.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Whole {
    pub(crate) async fn of(response: Response<GatewayBody>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("the answer broke off").to_bytes();
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    /// Checks that the body is OpenAI's error object, and gives type, code and param.
    pub(crate) fn error(&self) -> (String, Option<String>, Option<String>) {
        assert_eq!(self.header("content-type"), Some("application/json"));
        let json = self.json();
        let error = json["error"].as_object().expect("an error object");
        let mut keys: Vec<_> = error.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["code", "message", "param", "type"]);
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()));
        let text = |key: &str| error[key].as_str().map(str::to_owned);
        (text("type").expect("a type"), text("code"), text("param"))
    }
}

pub(crate) async fn whole<B>(gateway: &Gateway, request: Request<B>) -> Whole
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<gateway_core::BoxError>,
{
    Whole::of(send(gateway, request).await).await
}

/// The next chunk of an answer.
pub(crate) async fn next_chunk(body: &mut GatewayBody) -> Option<Bytes> {
    let frame = body.frame().await?.expect("the answer broke off");
    Some(frame.into_data().expect("data"))
}

/// Polls a future once and says that it is not ready.
pub(crate) async fn must_wait<F: Future>(mut future: Pin<&mut F>) {
    let ready = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
    assert!(!ready, "did not wait");
}
