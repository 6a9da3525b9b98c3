//! Listening, accepting and ending: what the gateway leaves to whoever mounts it.

#[path = "server/bounded.rs"]
mod bounded;
#[path = "server/unix.rs"]
mod unix;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway_core::BoxError;
use gateway_transport_ws::PeerAddr;
use http::{Request, Response, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

/// Connections that may wait to be accepted; the kernel has its own limit besides.
const BACKLOG: u32 = 4096;
/// From the opening of a connection, or the end of the last answer, to the end of a request's headers.
/// So an idle connection is closed after it too.
const HEADER_READ: Duration = Duration::from_secs(60);
/// How long a client may take nothing of its answer. Longer, and its connection is cut: the slot that the
/// answer holds on a runner is for somebody who reads.
const WRITE_STALL: Duration = Duration::from_secs(120);
/// The pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[allow(unused_imports, reason = "tests need not name it")]
pub(crate) use unix::{UnixSocket, listen_unix};

/// Listens at `host:port`.
///
/// # Errors
/// The host is not known, or no address of it could be bound; the message names it.
pub(crate) async fn listen(address: &str) -> io::Result<TcpListener> {
    let explain =
        |error: io::Error| io::Error::new(error.kind(), format!("cannot listen at {address}: {error}"));
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for candidate in lookup_host(address).await.map_err(explain)? {
        match bind(candidate) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(explain(last))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http1,
    /// From the first byte on, as clients of gRPC do.
    Http2,
    /// Whichever the client begins with.
    Both,
}

/// Where connections come from.
pub(crate) trait Listen: Sized {
    type Stream: AsyncRead + AsyncWrite + Send + 'static;

    /// The next connection, and where its client is if that can be said.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<SocketAddr>)>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        let (stream, peer) = Self::accept(self).await?;
        // Small writes must not wait for an ACK; a socket that refuses is about to fail anyway.
        let _ = stream.set_nodelay(true);
        Ok((stream, Some(peer)))
    }
}

/// Serves HTTP/1 until `stop`, then lets the answers under way end, but no longer than `drain`.
pub(crate) async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    max_connections: usize,
    stop: CancellationToken,
    drain: Duration,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    serve_as(listener, Speaks::Http1, service, max_connections, stop, drain).await;
}

/// The same, whatever is spoken.
pub(crate) async fn serve_as<L, S, B>(
    listener: L,
    speaks: Speaks,
    service: S,
    max_connections: usize,
    stop: CancellationToken,
    drain: Duration,
) where
    L: Listen,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    let places = Arc::new(Semaphore::new(max_connections));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.ok()?;
            let (stream, peer) = accept(&listener).await;
            Some((place, stream, peer))
        };
        let Some(Some((place, stream, peer))) = stop.run_until_cancelled(next).await else { break };
        while connections.try_join_next().is_some() {}
        let (service, stop) = (service.clone(), stop.clone());
        connections.spawn(async move {
            let _place = place;
            let stream = patient(stream);
            let ended = match speaks {
                Speaks::Http1 => http1_connection(stream, service, peer, stop).await,
                Speaks::Http2 | Speaks::Both => {
                    bounded::connection(stream, speaks, service, peer, stop).await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(?peer, %error, "connection ended early");
            }
        });
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(drain, all).await.is_err() {
        tracing::warn!("connections were still open when the time to drain was up");
    }
}

async fn http1_connection<I, S, B>(
    stream: Patient<I>,
    service: S,
    peer: Option<SocketAddr>,
    stop: CancellationToken,
) -> Result<(), BoxError>
where
    I: AsyncRead + AsyncWrite + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ)
        .serve_connection(TokioIo::new(stream), service_fn(move |request| call(&service, peer, request)))
        .with_upgrades();
    let (mut connection, mut stopping) = (pin!(connection), pin!(stop.cancelled()));
    let (mut is_heard, mut is_told) = (false, false);
    Ok(poll_fn(|cx| {
        // It wakes this task once it has been asked; after that a look at the flag is cheaper.
        let stops = if is_heard { stop.is_cancelled() } else { stopping.as_mut().poll(cx).is_ready() };
        is_heard = true;
        if stops && !is_told {
            is_told = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await?)
}

fn call<S>(service: &S, peer: Option<SocketAddr>, mut request: Request<Incoming>) -> S::Future
where
    S: Service<Request<Incoming>> + Clone,
{
    // Runners that dial in are asked where they are, and others are told where a request came from. Inference
    // need not pay for it.
    let path = request.uri().path();
    let is_inference = matches!(path, "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings");
    let is_asked = !is_inference || request.headers().contains_key(header::UPGRADE);
    if let Some(peer) = peer.filter(|_| is_asked) {
        request.extensions_mut().insert(PeerAddr(peer));
    }
    service.clone().call(request)
}

/// A stream that fails when its peer takes nothing for too long.
type Patient<I> = Pin<Box<TimeoutStream<I>>>;

fn patient<I: AsyncRead + AsyncWrite>(stream: I) -> Patient<I> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_STALL));
    Box::pin(stream)
}

async fn accept<L: Listen>(listener: &L) -> (L::Stream, Option<SocketAddr>) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // The client was gone before we came to it.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections, trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Cancels `stop` at the first SIGTERM or SIGINT and ends the process at the second.
///
/// # Errors
/// The signals cannot be listened to.
pub(crate) fn stop_on_signals(stop: CancellationToken) -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        for code in [None, Some(130)] {
            let (terminated, interrupted) = (pin!(terminate.recv()), pin!(interrupt.recv()));
            futures_util::future::select(terminated, interrupted).await;
            if let Some(code) = code {
                std::process::exit(code);
            }
            tracing::info!("draining; a second signal ends at once");
            stop.cancel();
        }
    })
}
