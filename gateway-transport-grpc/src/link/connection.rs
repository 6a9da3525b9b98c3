//! One HTTP/2 connection, and its windows.
//!
//! Every stream has a window of its own, given back as messages are handed on: a reader that stops holds up its
//! own stream, with that much in memory, and no other. The connection's window is never the one that runs
//! out: it is as much as all windows of its streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use gateway_core::{CancellationToken, LinkError};
use h2::client::{Connection, SendRequest};
use h2::{Ping, Reason};
use http::{HeaderValue, Method, Request, Uri, Version, header, uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};

use super::call::{Call, Question};
use super::settings::Settings;
use crate::contract::Dialect;

/// What a stream that nobody reads may cost in small frames, by h2's count of what each is short of 256
/// bytes. Workers send one token per frame: a full window may consist of frames of 16 bytes and not cost the
/// connection.
const SMALL_FRAMES: usize = 1024 * 1024;

/// How many streams that we have reset are remembered, so that what the worker sent before it heard of it is
/// known for what it is.
const REMEMBERED_RESETS: usize = 1024;

/// Longest head or trailers of an answer, in bytes, as HTTP/2 counts it.
const MAX_HEAD_BYTES: u32 = 64 * 1024;

/// Streams beyond those for inference, so that a worker with its hands full can still be asked how it is.
const SPARE: u32 = 4;

/// What HTTP/2 allows for a window.
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// How many pings in a row a worker gets while nothing else comes from it, and how far apart they are after that:
/// servers of gRPC's C core close a connection with the third that follows another within five minutes of silence
/// (`GRPC_ARG_HTTP2_MAX_PING_STRIKES`, `GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS`).
const PINGS_IN_SILENCE: u32 = 3;
const RARE_PINGS: Duration = Duration::from_secs(301);

/// A connection over which calls can be made. Cheap to clone.
#[derive(Clone)]
pub(super) struct Wire {
    sender: SendRequest<Bytes>,
    traffic: Arc<Traffic>,
    settings: Arc<Settings>,
}

/// A connection whose worker's dialect is known.
pub(super) struct Live {
    pub(super) wire: Wire,
    pub(super) dialect: Dialect,
    /// Cancelled when the connection has ended.
    pub(super) over: CancellationToken,
}

/// What goes on on a connection.
#[derive(Debug, Default)]
struct Traffic {
    calls: AtomicUsize,
    /// Since it was last looked at.
    heard: AtomicBool,
}

/// One of the streams that a connection may have.
#[derive(Debug)]
pub(super) struct Place(Arc<Traffic>);

impl Place {
    /// Something came from the worker: it lives.
    pub(super) fn heard(&self) {
        self.0.heard.store(true, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Release);
    }
}

impl Wire {
    /// Begins HTTP/2. The connection must be driven for anything to move.
    pub(super) async fn open<T>(
        io: T,
        settings: Arc<Settings>,
    ) -> Result<(Self, Connection<T, Bytes>), h2::Error>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let streams = settings.max_streams + SPARE;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(settings.stream_window)
            .initial_connection_window_size(settings.stream_window.saturating_mul(streams).min(MAX_WINDOW))
            .data_frame_budget(SMALL_FRAMES * streams as usize)
            .initial_max_send_streams(streams as usize)
            .max_header_list_size(MAX_HEAD_BYTES)
            .max_concurrent_reset_streams(REMEMBERED_RESETS)
            // Every cancelled request may count as one, over the whole life of the connection.
            .max_local_error_reset_streams(None)
            .enable_push(false)
            .handshake(io)
            .await?;
        Ok((Self { sender, traffic: Arc::default(), settings }, connection))
    }

    /// Asks for inference.
    pub(super) fn predict(
        &self,
        path: &'static str,
        question: Question,
        timeout: Option<HeaderValue>,
    ) -> Result<Call, LinkError> {
        self.call(self.place(self.most_calls())?, path, question, timeout)
    }

    /// Asks for something else.
    pub(super) fn ask(&self, path: &'static str, message: Bytes) -> Result<Call, LinkError> {
        let question = Question { head: message, prompt: Bytes::new() };
        self.call(self.place(self.sender.current_max_send_streams())?, path, question, None)
    }

    /// The most calls for inference at once: what was set, or the worker allows if that is less.
    pub(super) fn most_calls(&self) -> usize {
        let allowed = self.sender.current_max_send_streams().saturating_sub(SPARE as usize).max(1);
        allowed.min(self.settings.max_streams as usize)
    }

    /// Sends a request of one message.
    fn call(
        &self,
        place: Place,
        path: &'static str,
        question: Question,
        timeout: Option<HeaderValue>,
    ) -> Result<Call, LinkError> {
        let mut sender = self.sender.clone();
        let request = self.request(path, timeout)?;
        let unsent = |error| LinkError::not_sent("the connection takes no new calls").because(error);
        let (response, mut stream) = sender.send_request(request, false).map_err(unsent)?;
        // It is in memory already, so queueing it costs nothing. That it cannot be queued, the answer will tell.
        let Question { head, prompt } = question;
        let is_whole = prompt.is_empty();
        let queued = stream.send_data(head, is_whole);
        if !is_whole && queued.is_ok() {
            let _ = stream.send_data(prompt, true);
        }
        Ok(Call::new(response, self.settings.message_limit, place))
    }

    /// Whether new calls can be made over it.
    pub(super) fn is_open(&self) -> bool {
        let mut sender = self.sender.clone();
        let mut nobody = Context::from_waker(Waker::noop());
        !matches!(sender.poll_ready(&mut nobody), Poll::Ready(Err(_)))
    }

    /// One more than there may be would wait inside HTTP/2, where nobody could send it elsewhere.
    fn place(&self, most: usize) -> Result<Place, LinkError> {
        let taken = self.traffic.calls.fetch_add(1, Ordering::AcqRel);
        let place = Place(self.traffic.clone());
        if taken < most {
            Ok(place)
        } else {
            Err(LinkError::not_sent("every stream of the connection is taken"))
        }
    }

    fn request(&self, path: &'static str, timeout: Option<HeaderValue>) -> Result<Request<()>, LinkError> {
        let mut parts = uri::Parts::default();
        parts.scheme = Some(uri::Scheme::HTTP);
        parts.authority = Some(self.settings.authority.clone());
        parts.path_and_query = Some(uri::PathAndQuery::from_static(path));
        let uri =
            Uri::from_parts(parts).map_err(|error| LinkError::not_sent("no such path").because(error))?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        let headers = request.headers_mut();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        if let Some(token) = &self.settings.token {
            headers.insert(header::AUTHORIZATION, token.clone());
        }
        if let Some(timeout) = timeout {
            headers.insert("grpc-timeout", timeout);
        }
        Ok(request)
    }
}

const USER_AGENT: &str = concat!("grpc-rust-inference-gateway/", env!("CARGO_PKG_VERSION"));

impl Live {
    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }
}

/// Moves what is to be moved until the connection ends, or its worker does not answer a ping in time.
///
/// Pings go out only while calls are under way and nothing is heard, and few of them: that is all that gRPC's servers
/// put up with by default. `Err(TooManyPings)` if it was too much even so.
pub(super) async fn drive<T>(
    mut connection: Connection<T, Bytes>,
    wire: Wire,
    keepalive: Duration,
) -> Result<(), TooManyPings>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let pings = connection.ping_pong();
    let limit = wire.settings.keepalive_timeout;
    // The driver is not one of those for whom the connection is kept open.
    let traffic = wire.traffic.clone();
    drop(wire);
    let silent = async {
        let Some(mut pings) = pings else { return std::future::pending().await };
        let mut unheard = 0;
        loop {
            sleep(if unheard < PINGS_IN_SILENCE { keepalive } else { keepalive.max(RARE_PINGS) }).await;
            if traffic.heard.swap(false, Ordering::Relaxed) {
                unheard = 0;
            } else if traffic.calls.load(Ordering::Acquire) > 0 {
                unheard += 1;
                if !matches!(timeout(limit, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
                    return;
                }
            }
        }
    };
    tokio::select! {
        biased;
        ended = &mut connection => match ended {
            Err(error) if error.is_go_away() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM) => Err(TooManyPings),
            Err(error) => {
                tracing::debug!(%error, "a connection to a worker broke");
                Ok(())
            }
            Ok(()) => Ok(()),
        },
        () = silent => {
            tracing::debug!("a worker does not answer pings: its connection is given up");
            Ok(())
        }
    }
}

/// The worker wants fewer pings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooManyPings;
