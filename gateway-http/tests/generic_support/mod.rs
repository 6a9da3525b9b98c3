//! Runners for generic routes, in the hands of the test or behind a socket.
#![allow(dead_code, reason = "each test file uses a part")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use gateway_core::{
    Health, LinkDescription, LinkError, LinkRequest, LinkResponse, PeerAddr, ResourceReport, Resources,
    RunnerId, RunnerLink, RunnerSpec, RunnerStatus,
};
use gateway_http::{Gateway, GatewayBuilder, GenericRoute, OpenApi};
use gateway_transport_http::HttpLink;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tower_service::Service;

use crate::common::*;

/// A request that the test answers.
pub(crate) struct Call {
    pub(crate) request: LinkRequest,
    reply: oneshot::Sender<Result<LinkResponse, LinkError>>,
}

impl Call {
    /// Answers, and gives back the request, whose body may still come.
    pub(crate) fn answer(self, answer: Result<LinkResponse, LinkError>) -> LinkRequest {
        let _ = self.reply.send(answer);
        self.request
    }

    /// Lets go of the request, body and all, before it answers.
    pub(crate) fn drop_and_answer(self, answer: Result<LinkResponse, LinkError>) {
        let Self { request, reply } = self;
        drop(request);
        let _ = reply.send(answer);
    }
}

/// A runner that does what the test says, one request at a time.
pub(crate) struct ByHand(mpsc::Sender<Call>);

impl ByHand {
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<Call>) {
        let (send, calls) = mpsc::channel(16);
        (Arc::new(Self(send)), calls)
    }
}

#[async_trait]
impl RunnerLink for ByHand {
    fn describe(&self) -> LinkDescription {
        LinkDescription { transport: "by-hand", address: None }
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Call { request, reply }).await.map_err(|_| LinkError::lost("the test is over"))?;
        answer.await.map_err(|_| LinkError::lost("the test gave no answer"))?
    }
}

/// A document of these paths, each with a `get` and a `post` without more to say.
pub(crate) fn document(paths: &[&str]) -> OpenApi {
    let item = r#"{"get": {}, "post": {}}"#;
    let paths: Vec<String> = paths.iter().map(|path| format!(r#""{path}": {item}"#)).collect();
    parse(&format!("{{{}}}", paths.join(",")))
}

/// A document with this JSON as its paths.
pub(crate) fn parse(paths: &str) -> OpenApi {
    OpenApi::from_json(&format!(r#"{{"openapi": "3.1.0", "paths": {paths}}}"#)).unwrap()
}

/// A gateway with one generic route, its runners yet to come.
pub(crate) fn with_route(route: GenericRoute) -> GatewayBuilder {
    builder().generic(route)
}

/// Adds a runner without models.
pub(crate) fn add(gateway: &Gateway, id: &str, link: Arc<dyn RunnerLink>) {
    add_with(gateway, RunnerSpec::new(RunnerId::new(id).unwrap()), None, link);
}

/// Adds a runner without models that says what is free.
pub(crate) fn add_with(
    gateway: &Gateway,
    spec: RunnerSpec,
    free: Option<Resources>,
    link: Arc<dyn RunnerLink>,
) {
    let resources = ResourceReport { total: free, available: free, ..ResourceReport::default() };
    let status = RunnerStatus { health: Health::Healthy, resources, ..RunnerStatus::default() };
    gateway.dispatcher().registry().join(spec, status, link);
}

/// A body that always has another chunk, and counts those that were taken.
pub(crate) struct Endless {
    pub(crate) chunk: Bytes,
    pub(crate) taken: Arc<AtomicUsize>,
}

impl Endless {
    pub(crate) fn new(bytes: usize) -> (Self, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        (Self { chunk: vec![7; bytes].into(), taken: taken.clone() }, taken)
    }
}

impl Body for Endless {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        self.taken.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(self.chunk.clone()))))
    }
}

/// Something that listens on loopback; dropped, it closes every connection.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    _connections: JoinSet<()>,
}

/// The gateway behind a socket, as a host serves it.
pub(crate) async fn serve(gateway: &Gateway) -> Listening {
    let gateway = gateway.clone();
    listen(move |stream, peer| {
        let gateway = gateway.clone();
        async move {
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(PeerAddr(peer));
                gateway.clone().call(request)
            });
            let _ =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        }
    })
    .await
}

/// A server of HTTP whose answers are a closure's.
pub(crate) async fn backend<F, A, B>(handler: F) -> Listening
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<gateway_core::BoxError>,
{
    listen(move |stream, _| {
        let handler = handler.clone();
        async move {
            let service = service_fn(move |request| {
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let _ =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        }
    })
    .await
}

/// Runs `talk` for every connection.
pub(crate) async fn listen<F, T>(talk: F) -> Listening
where
    F: Fn(tokio::net::TcpStream, SocketAddr) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut accepting = JoinSet::new();
    accepting.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            connections.spawn(talk(stream, peer));
        }
    });
    Listening { address, _connections: accepting }
}

/// Adds a runner that has an address.
pub(crate) fn add_http(gateway: &Gateway, id: &str, address: SocketAddr) {
    add(gateway, id, Arc::new(HttpLink::new(format!("http://{address}")).unwrap()));
}
