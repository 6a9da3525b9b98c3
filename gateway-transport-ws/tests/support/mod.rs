//! A gateway's door over in-memory connections, and runners that knock at it.
#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod subjects;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use gateway_core::{
    BoxError, CancellationToken, Door, InMemoryRegistry, LinkBody, LinkDescription, LinkError, LinkRequest,
    LinkResponse, Registry, RequestBody, Runner, RunnerLink, RunnerSource,
};
use gateway_transport_ws::protocol::{GatewayMessage, RunnerMessage};
use gateway_transport_ws::socket::{Control, split, websocket_config};
use gateway_transport_ws::{PeerAddr, WsAcceptor, WsRunners, tunnel};
use http_body::{Body, Frame};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tower_service::Service;

/// A running source and the registry behind it.
pub struct Gateway {
    pub registry: Arc<InMemoryRegistry>,
    pub acceptor: WsAcceptor,
    pub peer: Option<SocketAddr>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Gateway {
    pub async fn start(runners: WsRunners) -> Self {
        let registry = Arc::new(InMemoryRegistry::new());
        let acceptor = runners.acceptor();
        let stop = CancellationToken::new();
        let running = tokio::spawn(Box::new(runners).run(registry.clone(), stop.clone()));
        let knock = || acceptor.knock(http::Request::new(()).into_parts().0).status();
        while knock() == http::StatusCode::SERVICE_UNAVAILABLE {
            tokio::task::yield_now().await;
        }
        Self { registry, acceptor, peer: Some(([127, 0, 0, 1], 4000).into()), stop, running }
    }

    pub async fn default() -> Self {
        Self::start(WsRunners::builder().auth_token("secret").build()).await
    }

    /// The byte stream of a new connection, with the host's server at its other end.
    pub fn connect(&self) -> DuplexStream {
        let (client, server) = tokio::io::duplex(16 * 1024);
        let (acceptor, peer) = (self.acceptor.clone(), self.peer);
        tokio::spawn(async move {
            let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
                request.extensions_mut().extend(
                    peer.map(|peer| {
                        let mut extensions = http::Extensions::new();
                        extensions.insert(PeerAddr(peer));
                        extensions
                    })
                    .unwrap_or_default(),
                );
                acceptor.clone().call(request)
            });
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(server), service)
                .with_upgrades();
            let _ = served.await;
        });
        client
    }

    pub async fn dial(&self) -> Client {
        let (socket, _) =
            client_async_with_config("ws://gateway/ws/runners", self.connect(), Some(websocket_config()))
                .await
                .unwrap();
        Client { socket }
    }

    /// Dials and registers.
    pub async fn join(&self, register: Value) -> Client {
        let mut client = self.dial().await;
        client.send(register).await;
        let ack = client.recv().await.unwrap();
        assert_eq!(ack["type"], "register_ack", "{ack}");
        client
    }

    /// A door whose source has ended.
    pub fn closed(acceptor: WsAcceptor, registry: Arc<InMemoryRegistry>, peer: Option<SocketAddr>) -> Self {
        Self { registry, acceptor, peer, stop: CancellationToken::new(), running: tokio::spawn(async {}) }
    }

    /// Whether a handshake would be let in. Leaves no connection behind.
    pub async fn acceptor_has_room(&self) -> bool {
        let socket = client_async_with_config("ws://gateway/ws/runners", self.connect(), None).await;
        match socket {
            Ok((mut socket, _)) => {
                socket.close(None).await.unwrap();
                while let Some(Ok(_)) = socket.next().await {}
                true
            }
            Err(_) => false,
        }
    }

    pub fn runner(&self, id: &str) -> Option<Arc<Runner>> {
        self.registry.fleet().runner(id).cloned()
    }

    /// Waits until the fleet is as wanted.
    pub async fn until(&self, wanted: impl Fn(&gateway_core::Fleet) -> bool) {
        let mut events = self.registry.events();
        while !wanted(&self.registry.fleet()) {
            events.next().await.unwrap();
        }
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        (&mut self.running).await.unwrap();
    }
}

/// A runner that speaks JSON and nothing else.
pub struct Client {
    pub socket: WebSocketStream<DuplexStream>,
}

impl Client {
    pub async fn send(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next text frame, or `None` when the connection has ended.
    pub async fn recv(&mut self) -> Option<Value> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next text frame of that type.
    pub async fn recv_type(&mut self, wanted: &str) -> Value {
        loop {
            let message = self.recv().await.expect("the connection has ended");
            if message["type"] == wanted {
                return message;
            }
        }
    }
}

pub fn status(loaded: &[&str]) -> Value {
    json!({
        "health": "healthy", "capabilities": [], "metrics": null, "model_aliases": {},
        "engines": [{"engine_type": "llama_cpp", "is_healthy": true, "version": null, "loaded_models": loaded,
                     "available_models": [], "error": null, "batch_size": 1}],
    })
}

pub fn register(id: &str) -> Value {
    json!({
        "type": "register", "runner_id": id, "runner_name": "A runner", "machine_type": "gpu-server",
        "http_port": 9000, "protocol_version": 1, "auth_token": "secret", "status": status(&["a"]),
        "mac_address": null,
    })
}

pub fn heartbeat(kind: &str, status: Value) -> Value {
    let mut message = status;
    message["type"] = kind.into();
    message
}

/// A runner with the tunnel, in front of `engine`.
pub struct TunnelRunner {
    pub control: Control,
    pub finish: CancellationToken,
    pub tasks: JoinSet<()>,
    /// `true`: the runner's side stands still.
    pub frozen: tokio::sync::watch::Sender<bool>,
}

impl TunnelRunner {
    pub async fn start(gateway: &Gateway, id: &str, max_streams: u32, engine: Arc<dyn RunnerLink>) -> Self {
        let mut message = register(id);
        message["tunnel"] = json!({"version": 1, "max_streams": max_streams});
        let mut client = gateway.dial().await;
        client.send(message).await;
        let (mut control, io, driver) = split(client.socket);
        let finish = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let serving = tunnel::serve(io, engine, max_streams, finish.clone());
        let (frozen, mut is_frozen) = tokio::sync::watch::channel(false);
        tasks.spawn(async move {
            let mut driving = std::pin::pin!(driver.beside(serving));
            loop {
                let _ = is_frozen.wait_for(|frozen| !frozen).await;
                tokio::select! {
                    biased;
                    _ = is_frozen.wait_for(|frozen| *frozen) => {}
                    _ = driving.as_mut() => return,
                }
            }
        });
        let ack = GatewayMessage::parse(&control.recv().await.unwrap()).unwrap();
        let GatewayMessage::RegisterAck { tunnel: Some(grant), .. } = ack else { panic!("{ack:?}") };
        assert_eq!(grant.max_streams, max_streams);
        gateway.until(|fleet| fleet.runner(id).is_some()).await;
        Self { control, finish, tasks, frozen }
    }

    pub fn say(&self, message: &RunnerMessage) {
        self.control.sender().send(message.to_text()).unwrap();
    }
}

type Answering = dyn Fn(LinkRequest) -> Pin<Box<dyn Future<Output = Result<LinkResponse, LinkError>> + Send>>
    + Send
    + Sync;

/// An engine whose answers a closure gives.
pub struct Engine(Box<Answering>);

impl Engine {
    pub fn answering<F, A>(answer: F) -> Arc<dyn RunnerLink>
    where
        F: Fn(LinkRequest) -> A + Send + Sync + 'static,
        A: Future<Output = Result<LinkResponse, LinkError>> + Send + 'static,
    {
        Arc::new(Self(Box::new(move |request| Box::pin(answer(request)))))
    }
}

#[async_trait::async_trait]
impl RunnerLink for Engine {
    fn describe(&self) -> LinkDescription {
        LinkDescription { transport: "script", address: None }
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        self.0(request).await
    }
}

/// A body that a test writes, chunk by chunk. Its being dropped can be waited for.
pub fn body() -> (tokio::sync::mpsc::Sender<Result<Bytes, &'static str>>, LinkBody) {
    struct Written(tokio::sync::mpsc::Receiver<Result<Bytes, &'static str>>);
    impl Body for Written {
        type Data = Bytes;
        type Error = LinkError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
            self.0.poll_recv(cx).map(|next| next.map(|next| next.map(Frame::data).map_err(LinkError::lost)))
        }
    }
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    (sender, LinkBody::new(Written(receiver)))
}

/// A request's body that a test writes.
pub fn upload() -> (tokio::sync::mpsc::Sender<Result<Bytes, BoxError>>, RequestBody) {
    struct Written(tokio::sync::mpsc::Receiver<Result<Bytes, BoxError>>);
    impl Body for Written {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            self.0.poll_recv(cx).map(|next| next.map(|next| next.map(Frame::data)))
        }
    }
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    (sender, RequestBody::stream(Written(receiver)))
}

pub fn post(body: impl Into<RequestBody>) -> LinkRequest {
    http::Request::post("/v1/chat/completions?a=b").body(body.into()).unwrap()
}

/// Far more than anything here takes, under a paused clock too: whoever waits so long waits forever.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it never happened")
}

/// Waits until nobody holds the other end.
pub async fn dropped(sender: &tokio::sync::mpsc::Sender<Result<Bytes, &'static str>>) {
    soon(sender.closed()).await;
}

pub async fn next_chunk(body: &mut LinkBody) -> Option<Result<Bytes, LinkError>> {
    let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
    Some(frame.map(|frame| frame.into_data().unwrap()))
}

pub fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap()
}
