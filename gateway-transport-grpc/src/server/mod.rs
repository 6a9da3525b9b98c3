//! Others call the gateway with the contract: the gateway's own HTTP service, as services of gRPC.

mod answer;
mod api;
mod ask;
mod authority;
mod beside;
mod builder;
mod caller;
mod control;
mod doorkeeper;
mod health;
mod inner;
mod mounted;
mod piece;
mod predict;
mod sse;
mod tally;

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use gateway_core::{BoxError, Registry};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

pub use ask::PromptAs;
pub use authority::LenientAuthority;
pub use beside::{Beside, BesideFuture};
pub use builder::{GrpcServerBuilder, GrpcServerError};
use inner::Inner;
use mounted::Services;
use tally::Tally;

/// The gateway for those who speak gRPC: one [`tower_service::Service`] with the AiInference contract in both of its
/// dialects, `grpc.health.v1`, server reflection (v1 and v1alpha), and whatever services are added.
///
/// Every request of StreamPredict becomes one of the OpenAI API, made to the HTTP service that it is built around. So
/// whatever holds there holds here: authentication, limits, queue, router, balancer, metrics, request log; and every
/// runner can serve it, whatever its transport.
///
/// # How a request is translated
///
/// | of the contract | of the HTTP request |
/// |---|---|
/// | `model_id`, `prompt` | `model`, and `prompt` or `messages`: see [`PromptAs`] |
/// | `generation` | `max_tokens`, `temperature`, `top_p`; what is 0 is not set, and then the contract's defaults hold: 256, 0.7, 0.9. `repetition_penalty`, also as `repeat_penalty`, unless it is 0: the contract's 1.0 is what engines do anyway |
/// | `adapter` | the field `adapter` |
/// | `metadata` | `player_id` is the field `user`; `tenant`, `locale` and `extra` are the field `metadata` |
/// | `metadata.trace_id` | the header `x-request-id`, if it can be one: visible ASCII, 128 bytes at most. It is told back in every message; without one, the gateway's own id is |
/// | `priority` | above 0 the header `x-priority: high`, below 0 `low`; clients get no more than they were granted |
/// | `worker_hint` | the header `x-worker-hint` |
/// | metadata of the call | headers of the same names: `authorization`, `x-api-key`, `x-session-id`, … |
/// | the call's deadline | `x-request-timeout-ms`, and the call ends when it is over |
///
/// The answer's messages are numbered from 0. The first has `ttft_ms`: milliseconds from the arrival of the request to
/// its text. The last has an empty chunk, and `tokens_per_sec` if the engine tells how many tokens there were: those,
/// divided by the time from the request's arrival to its end. What is not known is 0, which the contract takes for not
/// set. Failures are statuses of gRPC with the gateway's own message. Overload is `RESOURCE_EXHAUSTED`, with the metadata
/// `retry-after` (seconds) and `google.rpc.RetryInfo`.
///
/// Several requests of one stream are served in their order, each up to its own last message. The next one is read when
/// the one before has been answered. A request that fails ends the stream.
///
/// `Control` knows `list_models`, `ping`, and for admins `load_model` and `unload_model`: of the runner in the payload's
/// `runner`, or one that has the model, or all that have it loaded (`force` unloads what is in use). `Health` needs no
/// credentials and tells of the whole fleet.
///
/// More than 64 KiB of a call are read only of those whom the gateway lets in, and of a message no more than
/// [`GrpcServerBuilder::max_message_bytes`].
///
/// # Serving it
///
/// ```
/// use std::convert::Infallible;
/// use gateway_core::CancellationToken;
/// use gateway_transport_grpc::{GrpcServer, LenientAuthority};
/// use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
/// use hyper_util::service::TowerToHyperService;
/// use tokio::net::{TcpListener, UnixListener};
///
/// # fn gateway() -> impl tower_service::Service<http::Request<http_body_util::Full<bytes::Bytes>>,
/// #     Response = http::Response<String>, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static {
/// #     #[derive(Clone)]
/// #     struct Nothing;
/// #     impl<B> tower_service::Service<http::Request<B>> for Nothing {
/// #         type Response = http::Response<String>;
/// #         type Error = Infallible;
/// #         type Future = std::future::Ready<Result<Self::Response, Infallible>>;
/// #         fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
/// #             std::task::Poll::Ready(Ok(()))
/// #         }
/// #         fn call(&mut self, _: http::Request<B>) -> Self::Future { std::future::ready(Ok(Default::default())) }
/// #     }
/// #     Nothing
/// # }
/// /// Both kinds of listeners give streams that hyper serves. HTTP/2 is spoken from the first byte on, as clients of
/// /// gRPC do without TLS.
/// async fn serve(io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static, grpc: GrpcServer) {
///     let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
///         .timer(TokioTimer::new())
///         .keep_alive_interval(std::time::Duration::from_secs(30))
///         .max_concurrent_streams(256)
///         // A window for each stream: requests that wait to be read hold nobody else up.
///         .initial_stream_window_size(64 << 10)
///         .initial_connection_window_size(256 * (64 << 10))
///         .serve_connection(TokioIo::new(io), TowerToHyperService::new(grpc));
///     let _ = connection.await;
/// }
///
/// # let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # rt.block_on(async {
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("gateway.sock");
/// // `gateway` is a `gateway_http::Gateway`, or any other service with its routes.
/// let grpc = GrpcServer::builder(gateway()).build()?;
/// let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
/// let unix = UnixListener::bind(path).unwrap();
/// # let stop = CancellationToken::new();
/// # stop.cancel();
/// loop {
///     tokio::select! {
///         Ok((io, _)) = tcp.accept() => { tokio::spawn(serve(io, grpc.clone())); }
///         Ok((io, _)) = unix.accept() => { tokio::spawn(serve(LenientAuthority::new(io), grpc.clone())); }
///         () = stop.cancelled() => break,
///     }
/// }
/// // Beside `gateway.shutdown(…)`: ends what would never end by itself.
/// grpc.close();
/// # Ok::<(), gateway_transport_grpc::GrpcServerError>(())
/// # }).unwrap();
/// ```
///
/// Cheap to clone; clones are the same server.
///
/// # Cancel safety
///
/// Dropping the future of a call, or the body of its answer, cancels the request on the runner, as servers do when a
/// client cancels the call or closes its connection.
#[derive(Clone)]
pub struct GrpcServer(Arc<Served>);

struct Served {
    shared: Arc<Shared>,
    services: Services,
}

/// What all calls share.
pub(crate) struct Shared {
    inner: Inner,
    prompt_as: PromptAs,
    registry: Option<Arc<dyn Registry>>,
    max_message_bytes: usize,
    closing: CancellationToken,
    tally: Arc<Tally>,
}

impl GrpcServer {
    /// Begins to put a server together around the gateway's HTTP service.
    pub fn builder<S, RB>(gateway: S) -> GrpcServerBuilder
    where
        S: Service<Request<Full<Bytes>>, Response = Response<RB>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        RB: Body<Data = Bytes> + Send + 'static,
        RB::Error: Into<BoxError>,
    {
        GrpcServerBuilder::new(gateway)
    }

    /// This server and an HTTP service as one, for a single port: what has the content type of gRPC comes here,
    /// everything else goes there.
    pub fn beside<H>(&self, http: H) -> Beside<H> {
        Beside { grpc: self.clone(), http }
    }

    /// Ends what would never end by itself, so that connections can be drained: streams of StreamPredict on which no
    /// request is under way end with `UNAVAILABLE`, those that watch the health hear `NOT_SERVING`. Answers under way go
    /// on.
    ///
    /// Harmless to call again.
    pub fn close(&self) {
        self.0.shared.closing.cancel();
    }
}

/// The future of an answer of a [`GrpcServer`]. Dropping it cancels the call.
pub type GrpcFuture = Pin<Box<dyn Future<Output = Result<Response<tonic::body::Body>, Infallible>> + Send>>;

impl<B> Service<Request<B>> for GrpcServer
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = GrpcFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> GrpcFuture {
        if !beside::is_grpc(request.headers()) {
            let mut response = Response::new(tonic::body::Body::empty());
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Box::pin(std::future::ready(Ok(response)));
        }
        self.0.services.call(request.map(tonic::body::Body::new))
    }
}

impl fmt::Debug for GrpcServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut services: Vec<_> = self.0.services.names().collect();
        services.sort_unstable();
        f.debug_struct("GrpcServer").field("services", &services).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("prompt_as", &self.prompt_as).finish_non_exhaustive()
    }
}
