//! From an address to a gateway that has let the runner in.

use std::future::{Future, poll_fn};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use gateway_core::RunnerLink;
use gateway_dial_in::agent::{
    Connector, Dialled, Failed, Gateway, GatewayStream, Introduction, Refusal, Registered,
};
use http::header::{AUTHORIZATION, CONTENT_TYPE, TE};
use http::{HeaderValue, Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::address::Address;
use super::uplink::{GrpcUplink, Parts};
use crate::dial_in::MAX_STREAMS;
use crate::dial_in::mux::{Mux, RunnerSide, STREAM_WINDOW};
use crate::dial_in::reader::decode;
use crate::dial_in::wire::{Messages, Outgoing, PATH, ReadError, register_to, status_to};
use crate::proto::runner_gateway::{GatewayFrame, RunnerFrame, gateway_frame, runner_frame};

/// How often HTTP/2 asks whether the gateway is still there, and how long that may take: a gateway whose machine or
/// network is gone without a word is noticed within a minute, before it has given the runner up.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// What HTTP/2 may hold for us: a frame that must not wait waits for no more than this.
const SEND_BUFFER: usize = 64 * 1024;

/// The tasks of one HTTP/2 connection, ended when the last of these is dropped.
#[derive(Clone, Default)]
pub(super) struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
{
    fn execute(&self, task: F) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The set keeps what has ended until it is asked.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            task.await;
        });
    }
}

/// Ends the tasks, whoever else holds them: they hold themselves.
pub(super) struct EndsTasks(Tasks);

impl Drop for EndsTasks {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }
}

#[async_trait]
impl Gateway for Address {
    async fn dial(&self, connector: &dyn Connector) -> Result<Box<dyn Dialled>, Failed> {
        let stream = match self {
            Self::Tcp { host, port } => connector.connect(host, *port).await,
            Self::Unix(path) => connect_unix(path).await,
        };
        let io = TokioIo::new(stream.map_err(Failed::Connect)?);
        let tasks = Tasks::default();
        let (sender, connection) = http2::Builder::new(tasks.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .max_send_buf_size(SEND_BUFFER)
            .handshake(io)
            .await
            .map_err(|error| no_grpc(false, error))?;
        hyper::rt::Executor::execute(&tasks, async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to a gateway broke");
            }
        });
        Ok(Box::new(Opened { authority: self.authority(), sender, tasks: EndsTasks(tasks) }))
    }
}

#[cfg(unix)]
async fn connect_unix(path: &str) -> io::Result<Box<dyn GatewayStream>> {
    Ok(Box::new(tokio::net::UnixStream::connect(path).await?))
}

#[cfg(not(unix))]
async fn connect_unix(_: &str) -> io::Result<Box<dyn GatewayStream>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets"))
}

fn no_grpc(refused: bool, source: impl Into<gateway_core::BoxError>) -> Failed {
    let (problem, advice) =
        ("no call could be made there", "is it a gateway where runners dial in over gRPC?");
    Failed::Handshake { problem, advice, refused, source: source.into() }
}

/// An HTTP/2 connection on which no call was made yet.
struct Opened {
    authority: String,
    sender: http2::SendRequest<Outgoing<RunnerSide>>,
    tasks: EndsTasks,
}

#[async_trait]
impl Dialled for Opened {
    async fn register(
        self: Box<Self>,
        introduction: Introduction<'_>,
        gate: Arc<dyn RunnerLink>,
    ) -> Result<Registered, Failed> {
        let Self { authority, mut sender, tasks } = *self;
        let Introduction { spec, token, status, .. } = introduction;
        let register = register_to(spec, token, introduction.streams(MAX_STREAMS), status_to(status));
        let mux = Mux::<RunnerSide>::new();
        mux.say(RunnerFrame { frame: Some(runner_frame::Frame::Register(register)) })?;
        let call =
            call(&authority, token, Outgoing::new(mux.clone())).map_err(|error| no_grpc(true, error))?;
        let answer = sender.send_request(call).await.map_err(|error| no_grpc(false, error))?;
        let mut messages = Messages::new(accepted(answer)?);
        let registered = match poll_fn(|cx| messages.poll_next(cx)).await {
            Ok(Some(message)) => decode::<GatewayFrame>(message).map_err(|wrong| no_grpc(true, wrong))?,
            Ok(None) => return Err(ended(messages.trailers().and_then(Status::from_header_map))),
            Err(ReadError::Broken(error)) => return Err(Failed::Broken(error)),
            Err(wrong) => return Err(no_grpc(true, wrong)),
        };
        let registered = match registered.frame {
            Some(gateway_frame::Frame::Registered(registered)) => registered,
            Some(gateway_frame::Frame::Error(error)) => {
                return Err(Failed::Refused(Refusal::new(&error.code, &error.message)));
            }
            _ => return Err(no_grpc(true, "its first frame is not `registered`")),
        };
        if registered.stream_window != STREAM_WINDOW {
            return Err(no_grpc(true, "its streams have windows of another size than version 1 has"));
        }
        mux.allow(registered.max_streams.min(MAX_STREAMS));
        let interval = u64::from(registered.heartbeat_interval_ms);
        let uplink = GrpcUplink::new(Parts { messages, mux, gate, tasks, sender });
        Ok(Registered {
            uplink: Box::new(uplink),
            carries_requests: true,
            heartbeat_interval: (interval > 0).then(|| Duration::from_millis(interval)),
        })
    }
}

fn call(
    authority: &str,
    token: &str,
    body: Outgoing<RunnerSide>,
) -> Result<Request<Outgoing<RunnerSide>>, http::Error> {
    let uri = Uri::builder().scheme("http").authority(authority).path_and_query(PATH).build()?;
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    // For whatever stands before the gateway and asks for credentials. A token that no header holds is in
    // `register` only.
    if let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {token}"))
        && !token.is_empty()
    {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(request)
}

/// The body of a call that was taken.
fn accepted(answer: Response<Incoming>) -> Result<Incoming, Failed> {
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return Err(ended(Some(status)));
    }
    let is_grpc = answer
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if !answer.status().is_success() || !is_grpc {
        let status = answer.status();
        let passes = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
        return Err(no_grpc(!passes, format!("HTTP status {status}")));
    }
    Ok(answer.into_body())
}

/// Why a call ended, by its status.
pub(super) fn ended(status: Option<Status>) -> Failed {
    let Some(status) = status else { return Failed::Closed };
    let refused = matches!(
        status.code(),
        Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented
    );
    match status.code() {
        Code::Ok => Failed::Closed,
        code => no_grpc(refused, format!("{code:?}: {}", status.message().escape_debug())),
    }
}
