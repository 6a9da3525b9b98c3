//! A gateway that is played by hand, through tonic's own server.

use gateway_transport_grpc::proto::runner_gateway::runner_gateway_server::{
    RunnerGateway, RunnerGatewayServer,
};
use gateway_transport_grpc::proto::runner_gateway::{
    GatewayFrame, Register, Registered, RequestHead, RunnerFrame, gateway_frame, runner_frame,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Network;

pub use gateway_frame::Frame as Tell;
pub use runner_frame::Frame as Heard;

/// Takes the calls of agents.
pub struct Played {
    dialled: mpsc::Receiver<DuplexStream>,
}

/// One call, as the gateway sees it.
pub struct Call {
    pub token: Option<String>,
    heard: Streaming<RunnerFrame>,
    tell: Option<mpsc::Sender<Result<GatewayFrame, Status>>>,
    connection: JoinHandle<()>,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

type Taken = (Streaming<RunnerFrame>, mpsc::Sender<Result<GatewayFrame, Status>>, Option<String>);

struct Takes(mpsc::Sender<Taken>);

#[tonic::async_trait]
impl RunnerGateway for Takes {
    type ConnectStream = ReceiverStream<Result<GatewayFrame, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<RunnerFrame>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let token = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let (tell, told) = mpsc::channel(8);
        self.0.send((request.into_inner(), tell, token)).await.map_err(|_| Status::unavailable("gone"))?;
        Ok(Response::new(ReceiverStream::new(told)))
    }
}

impl Played {
    pub fn at(network: &Network, host: &str) -> Self {
        Self { dialled: network.listen(host) }
    }

    /// The next byte stream that an agent dials.
    pub async fn dialled(&mut self) -> DuplexStream {
        self.dialled.recv().await.expect("the agent is gone")
    }

    pub async fn call(&mut self) -> Call {
        let stream = self.dialled().await;
        let (takes, mut taken) = mpsc::channel(1);
        let service = TowerToHyperService::new(RunnerGatewayServer::new(Takes(takes)));
        let connection = tokio::spawn(async move {
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
        let (heard, tell, token) = super::soon(taken.recv()).await.expect("no call was made");
        Call { token, heard, tell: Some(tell), connection }
    }

    /// The next call, registered.
    pub async fn registered(&mut self) -> (Call, Register) {
        let mut call = self.call().await;
        let register = call.register().await;
        call.tell(Tell::Registered(Registered {
            runner_id: register.runner_id.clone(),
            max_streams: register.max_streams.unwrap(),
            stream_window: 65_536,
            heartbeat_interval_ms: 0,
        }))
        .await;
        (call, register)
    }
}

impl Call {
    pub async fn register(&mut self) -> Register {
        match self.heard().await {
            Some(Heard::Register(register)) => register,
            other => panic!("{other:?}"),
        }
    }

    /// The next frame; `None` when the agent has ended its side.
    pub async fn heard(&mut self) -> Option<Heard> {
        self.heard.message().await.ok().flatten().map(|frame| frame.frame.unwrap())
    }

    /// The next frame that is one of these.
    pub async fn until<T>(&mut self, wanted: impl Fn(Heard) -> Option<T>) -> T {
        super::soon(async {
            loop {
                let heard = self.heard().await.expect("the call has ended");
                if let Some(wanted) = wanted(heard) {
                    return wanted;
                }
            }
        })
        .await
    }

    pub async fn tell(&self, frame: Tell) {
        let frame = Ok(GatewayFrame { frame: Some(frame) });
        self.tell.as_ref().unwrap().send(frame).await.expect("the call has ended");
    }

    pub async fn request(&self, stream_id: u64, path: &str) {
        let (method, path) = ("GET".to_owned(), path.to_owned());
        self.tell(Tell::RequestHead(RequestHead {
            stream_id,
            method,
            path,
            end: true,
            ..Default::default()
        }))
        .await;
    }

    /// Ends the call with that status.
    pub async fn end(&mut self, status: Status) {
        let tell = self.tell.take().unwrap();
        if status.code() != tonic::Code::Ok {
            tell.send(Err(status)).await.unwrap();
        }
    }
}
