//! A runner that speaks frames by hand, through tonic's own client: what this crate writes is read by somebody
//! else's code, and the other way round.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use gateway_transport_grpc::proto::runner_gateway::runner_gateway_client::RunnerGatewayClient;
use gateway_transport_grpc::proto::runner_gateway::{
    Data, End, GatewayFrame, Health, Model, ModelState, Register, Registered, Reset, ResetReason,
    ResponseHead, RunnerFrame, RunnerStatus, gateway_frame, runner_frame,
};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

pub use gateway_frame::Frame as Told;
pub use runner_frame::Frame as Say;

pub struct Client {
    say: Option<mpsc::Sender<RunnerFrame>>,
    told: Streaming<GatewayFrame>,
}

#[derive(Clone)]
struct Channel(http2::SendRequest<tonic::body::Body>);

impl tower_service::Service<Request<tonic::body::Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<tonic::body::Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        *request.uri_mut() = format!("http://gateway{path}").parse().unwrap();
        Box::pin(self.0.send_request(request))
    }
}

impl Client {
    pub async fn dial(stream: DuplexStream, bearer: Option<&str>) -> Self {
        Self::try_dial(stream, bearer).await.unwrap()
    }

    pub async fn try_dial(stream: DuplexStream, bearer: Option<&str>) -> Result<Self, Status> {
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let (say, said) = mpsc::channel(8);
        let mut request = tonic::Request::new(ReceiverStream::new(said));
        if let Some(token) = bearer {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let told = RunnerGatewayClient::new(Channel(sender)).connect(request).await?.into_inner();
        Ok(Self { say: Some(say), told })
    }

    /// Has no effect once the call has ended: how it ended is heard.
    pub async fn say(&self, frame: Say) {
        self.say_raw(RunnerFrame { frame: Some(frame) }).await;
    }

    pub async fn say_raw(&self, frame: RunnerFrame) {
        let _ = self.say.as_ref().unwrap().send(frame).await;
    }

    /// Ends this side of the call.
    pub fn finish(&mut self) {
        self.say = None;
    }

    /// Registers and waits to be let in.
    pub async fn register(&mut self, register: Register) -> Registered {
        self.say(Say::Register(register)).await;
        match self.told().await {
            Ok(Told::Registered(registered)) => registered,
            other => panic!("{other:?}"),
        }
    }

    /// The next frame, or how the call ended.
    pub async fn told(&mut self) -> Result<Told, Status> {
        let next = super::soon(self.told.message()).await?;
        next.map(|frame| frame.frame.unwrap()).ok_or_else(|| Status::new(Code::Ok, ""))
    }

    /// The next frame that is no ping.
    pub async fn next(&mut self) -> Told {
        loop {
            match self.told().await {
                Ok(Told::Ping(_)) => {}
                told => return told.expect("the call has ended"),
            }
        }
    }

    /// Skips frames until the call ends: the last error, and the status.
    pub async fn end(&mut self) -> (Option<String>, Code) {
        let mut code = None;
        loop {
            match self.told().await {
                Ok(Told::Error(error)) => code = Some(error.code),
                Ok(_) => {}
                Err(status) => return (code, status.code()),
            }
        }
    }

    pub async fn answer(&self, stream_id: u64) {
        self.say(Say::ResponseHead(ResponseHead { stream_id, status: 200, ..Default::default() })).await;
    }

    pub async fn data(&self, stream_id: u64, data: impl Into<bytes::Bytes>) {
        self.say(Say::ResponseBody(Data { stream_id, data: data.into() })).await;
    }

    pub async fn done(&self, stream_id: u64) {
        self.say(Say::ResponseEnd(End { stream_id, ..Default::default() })).await;
    }

    pub async fn reset(&self, stream_id: u64, reason: ResetReason) {
        self.say(Say::Reset(Reset { stream_id, reason: reason.into(), message: String::new() })).await;
    }
}

pub fn status(loaded: &[&str]) -> RunnerStatus {
    let model =
        |id: &&str| Model { id: id.to_string(), state: ModelState::Loaded.into(), ..Model::default() };
    RunnerStatus {
        health: Health::Healthy.into(),
        models: loaded.iter().map(model).collect(),
        ..RunnerStatus::default()
    }
}

pub fn register(id: &str) -> Register {
    Register {
        protocol_version: 1,
        runner_id: id.to_owned(),
        token: "secret".to_owned(),
        status: Some(status(&["a"])),
        ..Register::default()
    }
}
