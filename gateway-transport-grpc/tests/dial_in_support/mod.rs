//! A gateway's service over in-memory connections, runners that dial in by hand or with the agent, and a gateway
//! that is played by hand.
#![allow(dead_code, missing_docs, unreachable_pub)] // Every test file uses its own part.

pub mod client;
pub mod played;
pub mod subjects;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gateway_core::{
    BoxError, CancellationToken, Command, CommandReply, InMemoryRegistry, LinkBody, LinkDescription,
    LinkError, LinkRequest, LinkResponse, ModelId, PeerAddr, Registry, RequestBody, Runner, RunnerId,
    RunnerLink, RunnerSource, RunnerSpec, RunnerStatus,
};
use gateway_transport_grpc::dial_in::agent::{AgentBuilder, Connector, GatewayStream};
use gateway_transport_grpc::dial_in::{DialInService, GrpcDialIn};
use http_body::{Body, Frame};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tower_service::Service;

pub use client::Client;

/// What stands between both ends of a connection, in bytes.
pub const WIRE: usize = 16 * 1024;

/// A running source and the registry behind it.
pub struct Gateway {
    pub registry: Arc<InMemoryRegistry>,
    pub service: DialInService,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Gateway {
    pub async fn start(runners: GrpcDialIn) -> Self {
        let registry = Arc::new(InMemoryRegistry::new());
        let service = runners.service();
        let stop = CancellationToken::new();
        let running = tokio::spawn(Box::new(runners).run(registry.clone(), stop.clone()));
        // The source's own task has its turn.
        tokio::task::yield_now().await;
        Self { registry, service, stop, running }
    }

    pub async fn default() -> Self {
        Self::start(GrpcDialIn::builder().auth_token("secret").build()).await
    }

    /// The byte stream of a new connection, with the host's server at its other end.
    pub fn connect(&self) -> DuplexStream {
        let (client, server) = duplex(WIRE);
        tokio::spawn(serve(server, self.service.clone()));
        client
    }

    pub async fn dial(&self) -> Client {
        Client::dial(self.connect(), None).await
    }

    /// Dials and registers.
    pub async fn join(&self, id: &str) -> Client {
        let mut client = self.dial().await;
        client.register(client::register(id)).await;
        client
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

    pub async fn joined(&self, id: &str) -> Arc<Runner> {
        soon(self.until(|fleet| fleet.runner(id).is_some())).await;
        self.runner(id).unwrap()
    }

    pub async fn stop(mut self) {
        self.stop.cancel();
        (&mut self.running).await.unwrap();
    }
}

/// A host's gRPC server on one connection.
pub async fn serve(stream: impl GatewayStream, service: DialInService) {
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(PeerAddr(([127, 0, 0, 1], 4000).into()));
        service.clone().call(request)
    });
    let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = server.max_send_buf_size(64 * 1024).serve_connection(TokioIo::new(stream), service).await;
}

/// The network: each dialled stream goes to whoever has that host name.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<HashMap<String, mpsc::Sender<DuplexStream>>>>);

impl Network {
    pub fn listen(&self, host: &str) -> mpsc::Receiver<DuplexStream> {
        let (sender, dialled) = mpsc::channel(8);
        self.0.lock().unwrap().insert(host.to_owned(), sender);
        dialled
    }

    /// Whoever dials this name reaches the gateway; gives the connections' tasks.
    pub fn host(&self, host: &str, gateway: &Gateway) -> Hosted {
        let mut dialled = self.listen(host);
        let service = gateway.service.clone();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let known = connections.clone();
        let listening = tokio::spawn(async move {
            while let Some(stream) = dialled.recv().await {
                known.lock().unwrap().push(tokio::spawn(serve(stream, service.clone())));
            }
        });
        Hosted { connections, listening }
    }
}

/// A gateway's listener.
pub struct Hosted {
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
    listening: JoinHandle<()>,
}

impl Hosted {
    /// Cuts every connection.
    pub fn cut(&self) {
        self.connections.lock().unwrap().drain(..).for_each(|connection| connection.abort());
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

#[async_trait]
impl Connector for Network {
    async fn connect(&self, host: &str, _: u16) -> io::Result<Box<dyn GatewayStream>> {
        let sender = self.0.lock().unwrap().get(host).cloned().ok_or(io::ErrorKind::NotFound)?;
        let (ours, theirs) = duplex(WIRE);
        sender.send(theirs).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(Box::new(ours))
    }
}

/// A running agent; dropping it cuts everything it has.
pub struct Running {
    pub stop: CancellationToken,
    task: JoinHandle<()>,
}

pub fn run(builder: AgentBuilder) -> Running {
    let stop = CancellationToken::new();
    let task = tokio::spawn(builder.build().unwrap().run(stop.clone()));
    Running { stop, task }
}

impl Running {
    /// Waits until it has returned.
    pub async fn returned(mut self) {
        (&mut self.task).await.unwrap();
    }

    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// As if the process were killed.
    pub fn kill(&self) {
        self.task.abort();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn spec(id: &str, slots: u32) -> RunnerSpec {
    RunnerSpec::new(RunnerId::new(id).unwrap()).slots(slots)
}

/// An agent for these gateways, not yet built.
pub fn agent(network: &Network, hosts: &[&str], engine: Arc<dyn RunnerLink>, slots: u32) -> AgentBuilder {
    let builder = gateway_transport_grpc::dial_in::agent::Agent::builder();
    let builder =
        builder.connector(network.clone()).spec(spec("gpu-1", slots)).token("secret").engine(engine);
    hosts.iter().fold(builder, |builder, host| builder.gateway(format!("grpc://{host}")))
}

type Answering = dyn Fn(LinkRequest) -> Pin<Box<dyn Future<Output = Result<LinkResponse, LinkError>> + Send>>
    + Send
    + Sync;

/// An engine whose answers a closure gives, with a model in memory.
pub struct Engine {
    answering: Box<Answering>,
    pub model: Mutex<&'static str>,
    pub commands: Mutex<Vec<Command>>,
}

impl Engine {
    pub fn answering<F, A>(answer: F) -> Arc<Self>
    where
        F: Fn(LinkRequest) -> A + Send + Sync + 'static,
        A: Future<Output = Result<LinkResponse, LinkError>> + Send + 'static,
    {
        let answering = Box::new(move |request| Box::pin(answer(request)) as Pin<Box<_>>);
        Arc::new(Self { answering, model: Mutex::new("small"), commands: Mutex::default() })
    }
}

#[async_trait]
impl RunnerLink for Engine {
    fn describe(&self) -> LinkDescription {
        LinkDescription { transport: "script", address: None }
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        (self.answering)(request).await
    }

    async fn command(&self, command: Command) -> Result<CommandReply, LinkError> {
        if command != Command::Status {
            self.commands.lock().unwrap().push(command);
            return Ok(CommandReply { result: Err("the test says no".to_owned()), status: None });
        }
        let status = RunnerStatus::serving([ModelId::new(*self.model.lock().unwrap()).unwrap()]);
        Ok(CommandReply { result: Ok(()), status: Some(status) })
    }
}

/// A body that a test writes, chunk by chunk. Its being dropped can be waited for.
pub fn body() -> (mpsc::Sender<Result<Bytes, &'static str>>, LinkBody) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, LinkBody::new(Written(receiver, LinkError::lost)))
}

/// A request's body that a test writes.
pub fn upload() -> (mpsc::Sender<Result<Bytes, &'static str>>, RequestBody) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, RequestBody::stream(Written(receiver, BoxError::from)))
}

struct Written<E>(mpsc::Receiver<Result<Bytes, &'static str>>, fn(&'static str) -> E);

impl<E> Body for Written<E> {
    type Data = Bytes;
    type Error = E;
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        let failed = self.1;
        self.0.poll_recv(cx).map(|next| next.map(|next| next.map(Frame::data).map_err(failed)))
    }
}

pub fn post(body: impl Into<RequestBody>) -> LinkRequest {
    http::Request::post("/v1/chat/completions?a=b").body(body.into()).unwrap()
}

/// Far more than anything here takes, under a paused clock too: whoever waits so long waits forever.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it never happened")
}

pub async fn next_chunk(body: &mut LinkBody) -> Option<Result<Bytes, LinkError>> {
    let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
    Some(frame.map(|frame| frame.into_data().unwrap()))
}

/// Whether there was another chunk, whatever it was.
pub async fn next_chunk_lenient(body: &mut LinkBody) -> bool {
    matches!(std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await, Some(Ok(_)))
}
