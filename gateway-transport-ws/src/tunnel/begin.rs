//! The gateway's HTTP/2, which begins with the first request: its buffers are more than all else that an idle runner
//! holds.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use gateway_core::LinkError;
use h2::client::{Connection, SendRequest};
use tokio::sync::oneshot;

use super::{MAX_HEAD_BYTES, STREAM_WINDOW};
use crate::socket::TunnelIo;

/// What a stream that nobody reads may cost in small frames, by h2's count of what each is short of 256
/// bytes. Engines send one token per frame: a full window may consist of frames of 16 bytes and not cost
/// the connection.
const SMALL_FRAMES: usize = 1024 * 1024;

/// How many streams that we have reset are remembered, so that what the runner sent before it heard of it
/// is known for what it is.
const REMEMBERED_RESETS: usize = 1024;

/// Where requests begin.
pub(super) struct Http2 {
    sender: OnceLock<SendRequest<Bytes>>,
    /// `None` once it has begun.
    begin: Mutex<Option<Begin>>,
}

struct Begin {
    io: TunnelIo,
    streams: u32,
    connection: oneshot::Sender<Box<Connection<TunnelIo, Bytes>>>,
}

impl Http2 {
    pub(super) fn new(io: TunnelIo, streams: u32) -> (Self, TunnelConnection) {
        let (connection, begins) = oneshot::channel();
        let begin = Mutex::new(Some(Begin { io, streams, connection }));
        (Self { sender: OnceLock::new(), begin }, TunnelConnection(State::Waits(begins)))
    }

    /// A handle to open streams with.
    pub(super) fn sender(&self) -> Result<SendRequest<Bytes>, LinkError> {
        if let Some(sender) = self.sender.get() {
            return Ok(sender.clone());
        }
        let mut begin = self.begin.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(begin) = begin.take() {
            // Fails only if it has begun before, which `take` rules out.
            let _ = self.sender.set(begin.now()?);
        }
        self.sender.get().cloned().ok_or_else(|| LinkError::not_sent("the tunnel could not be opened"))
    }
}

impl Begin {
    /// HTTP/2's client waits for nobody: what it says first has room in the byte stream.
    fn now(self) -> Result<SendRequest<Bytes>, LinkError> {
        let could_not = || LinkError::not_sent("the tunnel could not be opened");
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW * self.streams)
            .data_frame_budget(SMALL_FRAMES * self.streams as usize)
            .initial_max_send_streams(self.streams as usize)
            .max_send_buffer_size(STREAM_WINDOW as usize)
            .max_header_list_size(MAX_HEAD_BYTES)
            .max_concurrent_reset_streams(REMEMBERED_RESETS)
            // Every cancelled request may count as one, over the whole life of the connection.
            .max_local_error_reset_streams(None)
            .enable_push(false)
            .handshake(self.io)
            .now_or_never()
            .ok_or_else(could_not)?
            .map_err(|error| could_not().because(error))?;
        // Fails when the socket has gone. The connection goes with it, and whoever sends is told.
        let _ = self.connection.send(Box::new(connection));
        Ok(sender)
    }
}

/// Moves HTTP/2's frames. Ends when the tunnel has ended; nothing moves unless it is polled.
#[must_use = "nothing moves unless it is polled"]
pub struct TunnelConnection(State);

enum State {
    /// For the first request.
    Waits(oneshot::Receiver<Box<Connection<TunnelIo, Bytes>>>),
    Carries(Box<Connection<TunnelIo, Bytes>>),
}

impl Future for TunnelConnection {
    type Output = Result<(), h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.0 {
                State::Waits(begins) => match ready!(begins.poll_unpin(cx)) {
                    Ok(connection) => self.0 = State::Carries(connection),
                    // Every link is gone, and none was used.
                    Err(_) => return Poll::Ready(Ok(())),
                },
                State::Carries(connection) => return connection.poll_unpin(cx),
            }
        }
    }
}
