//! A scripted gateway and a scripted engine, joined to a real agent by byte streams in memory, so that time
//! can be paused.
#![allow(dead_code, unreachable_pub)] // Every test file uses its own part.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use gateway_core::{
    CancellationToken, Command, CommandReply, LinkDescription, LinkError, LinkRequest, LinkResponse, ModelId,
    RunnerId, RunnerLink, RunnerSpec, RunnerStatus,
};
use gateway_testkit::{MockEngine, Script};
use gateway_transport_ws::agent::{Agent, AgentBuilder, Connector, GatewayStream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

/// The network: hands each dialled stream to the gateway of that host name.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<HashMap<String, mpsc::Sender<DuplexStream>>>>);

impl Network {
    pub fn gateway(&self, host: &str) -> Gateway {
        let (sender, dialled) = mpsc::channel(8);
        self.0.lock().unwrap().insert(host.to_owned(), sender);
        Gateway { dialled }
    }
}

#[async_trait]
impl Connector for Network {
    async fn connect(&self, host: &str, _: u16) -> io::Result<Box<dyn GatewayStream>> {
        let sender = self.0.lock().unwrap().get(host).cloned().ok_or(io::ErrorKind::NotFound)?;
        let (ours, theirs) = duplex(256 * 1024);
        sender.send(theirs).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(Box::new(ours))
    }
}

pub struct Gateway {
    dialled: mpsc::Receiver<DuplexStream>,
}

impl Gateway {
    /// The next stream that the agent dials, before anything was said.
    pub async fn dialled(&mut self) -> DuplexStream {
        self.dialled.recv().await.expect("the agent is gone")
    }

    /// The next connection, after the handshake.
    pub async fn accept(&mut self) -> Peer {
        Peer::new(self.dialled().await).await
    }

    /// The next connection, registered: gives the connection and what was said in `register`.
    pub async fn registered(&mut self) -> (Peer, Value) {
        let mut peer = self.accept().await;
        let register = peer.register().await;
        (peer, register)
    }
}

/// One connection, as the gateway sees it. Dropping it cuts it without a close frame.
pub struct Peer {
    heard: mpsc::Receiver<Value>,
    say: mpsc::Sender<Message>,
    bytes: Option<DuplexStream>,
    /// Tells whether it ended with a close frame.
    pump: JoinSet<bool>,
}

impl Peer {
    /// Does the handshake.
    pub async fn new(stream: impl GatewayStream) -> Self {
        let socket = accept_async(stream).await.expect("the handshake failed");
        let (mut sink, mut frames) = socket.split();
        let (hear, heard) = mpsc::channel(1024);
        let (say, mut said) = mpsc::channel::<Message>(64);
        let (bytes, far) = duplex(256 * 1024);
        let (mut far_read, mut far_write) = tokio::io::split(far);
        let mut pump = JoinSet::new();
        pump.spawn(async move {
            let inward = async {
                while let Some(Ok(message)) = frames.next().await {
                    match message {
                        Message::Text(text) => {
                            let _ = hear.send(serde_json::from_str(&text).unwrap()).await;
                        }
                        Message::Binary(bytes) => {
                            let _ = far_write.write_all(&bytes).await;
                        }
                        Message::Close(_) => return true,
                        _ => {}
                    }
                }
                false
            };
            let outward = async {
                let mut chunk = vec![0; 16 * 1024];
                loop {
                    let message = tokio::select! {
                        Some(message) = said.recv() => message,
                        Ok(len @ 1..) = far_read.read(&mut chunk) => Bytes::copy_from_slice(&chunk[..len]).into(),
                        else => return,
                    };
                    if sink.send(message).await.is_err() {
                        return;
                    }
                }
            };
            tokio::pin!(inward);
            let closed = tokio::select! {
                closed = &mut inward => closed,
                () = outward => inward.await,
            };
            // Sends the answer to a close frame.
            let _ = sink.flush().await;
            closed
        });
        Self { heard, say, bytes: Some(bytes), pump }
    }

    /// Lets the runner in, with the tunnel if it asks for it; gives what was said in `register`.
    pub async fn register(&mut self) -> Value {
        let register = self.hear("register").await;
        let mut ack = json!({"type": "register_ack", "runner_id": register["runner_id"]});
        if register.get("tunnel").is_some() {
            ack["tunnel"] = register["tunnel"].clone();
        }
        self.say(ack).await;
        register
    }

    /// The next message.
    pub async fn next(&mut self) -> Value {
        self.heard.recv().await.expect("the connection ended")
    }

    /// The next message, which must be of that type.
    pub async fn hear(&mut self, kind: &str) -> Value {
        let message = self.next().await;
        assert_eq!(message["type"], kind, "{message}");
        message
    }

    /// Skips messages until one of that type.
    pub async fn until(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Skips messages until one that is as wanted.
    pub async fn until_it(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.next().await;
            if wanted(&message) {
                return message;
            }
        }
    }

    /// What came and was not yet read.
    pub fn pending(&mut self) -> Option<Value> {
        self.heard.try_recv().ok()
    }

    pub async fn say(&self, message: Value) {
        self.say_text(&message.to_string()).await;
    }

    pub async fn say_text(&self, text: &str) {
        self.say.send(Message::text(text)).await.expect("the connection ended");
    }

    /// Sends a close frame.
    pub async fn close(self) {
        self.say.send(Message::Close(None)).await.expect("the connection ended");
        let Self { mut pump, .. } = self;
        pump.join_next().await;
    }

    /// Waits for the end of the connection; whether it came with a close frame.
    pub async fn ended(self) -> bool {
        let Self { heard, say, bytes, mut pump } = self;
        let closed = pump.join_next().await.unwrap().unwrap();
        drop((heard, say, bytes));
        closed
    }

    /// An HTTP/2 client over the binary frames.
    pub async fn tunnel(&mut self) -> Tunnel {
        let bytes = self.bytes.take().expect("there is one tunnel");
        let (client, connection) = h2::client::handshake(bytes).await.expect("no tunnel is served");
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Tunnel { client }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.dialled.close();
    }
}

#[derive(Clone)]
pub struct Tunnel {
    client: h2::client::SendRequest<Bytes>,
}

impl Tunnel {
    /// Sends a request; the answer has its head already.
    pub async fn request(&self, path: &str) -> http::Response<h2::RecvStream> {
        let request = http::Request::get(format!("http://runner{path}")).body(()).unwrap();
        let mut client = self.client.clone().ready().await.expect("the tunnel is gone");
        let (response, _) = client.send_request(request, true).expect("the tunnel is gone");
        response.await.expect("no answer")
    }

    /// The whole of an answer's body.
    pub async fn text(response: http::Response<h2::RecvStream>) -> Result<String, h2::Error> {
        let mut body = response.into_body();
        let mut text = Vec::new();
        while let Some(chunk) = body.data().await {
            text.extend_from_slice(&chunk?);
        }
        Ok(String::from_utf8(text).unwrap())
    }
}

/// An engine whose status and commands the test decides on. Requests are answered by a script.
#[derive(Clone)]
pub struct Engine {
    pub mock: MockEngine,
    status: watch::Sender<Option<RunnerStatus>>,
    commands: Arc<Mutex<Vec<Command>>>,
    load: watch::Sender<Load>,
    asked: watch::Sender<u64>,
}

/// What the engine does with load and unload.
#[derive(Debug, Clone, PartialEq)]
pub enum Load {
    Done,
    Refuse(&'static str),
    Hang,
}

impl Engine {
    pub fn new(handler: impl Fn(&gateway_testkit::Seen) -> Script + Send + Sync + 'static) -> Self {
        let model = ModelId::new("small").unwrap();
        Self {
            mock: MockEngine::new(handler),
            status: watch::Sender::new(Some(RunnerStatus::serving([model]))),
            commands: Arc::default(),
            load: watch::Sender::new(Load::Done),
            asked: watch::Sender::new(0),
        }
    }

    pub fn idle() -> Self {
        Self::new(|_| Script::text("hello"))
    }

    /// From now on it tells this; `None`: it does not answer properly.
    pub fn set_status(&self, status: Option<RunnerStatus>) {
        self.status.send_replace(status);
    }

    pub fn set_load(&self, load: Load) {
        self.load.send_replace(load);
    }

    /// The commands besides status.
    pub fn commands(&self) -> Vec<Command> {
        self.commands.lock().unwrap().clone()
    }

    /// How often it was asked for its status.
    pub fn asked(&self) -> u64 {
        *self.asked.borrow()
    }
}

#[async_trait]
impl RunnerLink for Engine {
    fn describe(&self) -> LinkDescription {
        self.mock.describe()
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        self.mock.send(request).await
    }

    async fn command(&self, command: Command) -> Result<CommandReply, LinkError> {
        if command == Command::Status {
            self.asked.send_modify(|asked| *asked += 1);
            let status = self.status.borrow().clone();
            let status = status.ok_or(LinkError::not_sent("the test says so"))?;
            return Ok(CommandReply { result: Ok(()), status: Some(status) });
        }
        self.commands.lock().unwrap().push(command);
        let load = self.load.subscribe().wait_for(|load| *load != Load::Hang).await.unwrap().clone();
        let result = match load {
            Load::Refuse(words) => Err(words.to_owned()),
            _ => Ok(()),
        };
        Ok(CommandReply { result, status: None })
    }
}

pub fn spec(slots: u32) -> RunnerSpec {
    RunnerSpec::new(RunnerId::new("gpu-1").unwrap()).slots(slots)
}

/// An agent for these gateways, not yet built.
pub fn agent(network: &Network, hosts: &[&str], engine: &Engine, slots: u32) -> AgentBuilder {
    let builder = Agent::builder().connector(network.clone()).spec(spec(slots)).token("secret");
    let builder = builder.engine(Arc::new(engine.clone()));
    hosts.iter().fold(builder, |builder, host| builder.gateway(format!("ws://{host}")))
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

/// Seconds since `since`, whole: timers have a granularity of a millisecond.
pub fn seconds(since: Instant) -> u64 {
    (since.elapsed() + Duration::from_millis(500)).as_secs()
}
