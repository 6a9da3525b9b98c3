//! Between the driver and its users: bounded queues and buffers in either direction, of control messages for who speaks
//! the protocol and of bytes for HTTP/2, and who waits for them.
//!
//! The lock is never contended when both sides run in one task, and held only to move bytes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::{fmt, io};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::control::{Outbound, SendError};
use super::{CONTROL_QUEUE, FRAME_BYTES, INBOUND_BYTES, OUTBOUND_BYTES};

/// Most frames that wait for the reader, so that tiny ones do not add up beside their bytes.
const INBOUND_FRAMES: usize = 4096;

#[derive(Default)]
pub(super) struct Pipe {
    /// Control messages that have come.
    heard: VecDeque<Utf8Bytes>,
    /// Control messages to be sent.
    said: VecDeque<Outbound>,
    /// Nobody listens to control messages any more.
    deaf: bool,
    listener: Option<Waker>,
    /// What has come, frame by frame: a frame's bytes are copied once, to the reader.
    inbound: VecDeque<Bytes>,
    inbound_bytes: usize,
    /// Somebody has begun to read.
    read: bool,
    outbound: BytesMut,
    /// The socket has ended: the reader sees the end after what has come, the writer an error.
    ended: bool,
    /// The byte stream's user is gone: what comes is dropped.
    abandoned: bool,
    /// The driver is polling the user at this moment and will look again by itself.
    polling: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    driver: Option<Waker>,
}

pub(super) type Shared = Arc<Mutex<Pipe>>;

pub(super) fn lock(pipe: &Shared) -> MutexGuard<'_, Pipe> {
    pipe.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The driver's side.
impl Pipe {
    /// Whether more may be read from the socket.
    pub(super) fn has_room(&self) -> bool {
        self.inbound_bytes < INBOUND_BYTES
            && self.inbound.len() < INBOUND_FRAMES
            && self.heard.len() < CONTROL_QUEUE
    }

    /// Hands on a control message. `false` if nobody listens any more.
    pub(super) fn hear(&mut self, text: Utf8Bytes) -> bool {
        if self.deaf {
            return false;
        }
        self.heard.push_back(text);
        if let Some(listener) = self.listener.take() {
            listener.wake();
        }
        true
    }

    /// The next control message to send. If there is none, the driver is woken when there is.
    pub(super) fn next_said(&mut self) -> Option<Outbound> {
        self.said.pop_front()
    }

    pub(super) fn push(&mut self, frame: Bytes) {
        if self.abandoned || frame.is_empty() {
            return;
        }
        self.inbound_bytes += frame.len();
        // Its bytes lie in the buffer into which the socket is read. Until somebody reads, which may be long, they must
        // not hold that.
        self.inbound.push_back(if self.read { frame } else { Bytes::copy_from_slice(&frame) });
    }

    /// The next frame to send. If there is none, the driver is woken when there is.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        let len = self.outbound.len().min(FRAME_BYTES);
        (len > 0).then(|| self.outbound.split_to(len).freeze())
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    pub(super) fn wake_driver_with(&mut self, waker: &Waker) {
        if !self.driver.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.driver = Some(waker.clone());
        }
    }

    pub(super) fn set_polling(&mut self, polling: bool) {
        self.polling = polling;
    }

    pub(super) fn end(&mut self) {
        self.ended = true;
        self.said = VecDeque::new();
        let waiting = [self.reader.take(), self.writer.take(), self.listener.take()];
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    /// Wakes who can go on. One whose waker is `own` is not woken but reported: the caller polls it.
    pub(super) fn wake_users(&mut self, own: Option<&Waker>) -> bool {
        let mut again = false;
        let mut wake = |waker: &mut Option<Waker>| match (waker.take(), own) {
            (Some(waker), Some(own)) if waker.will_wake(own) => again = true,
            (Some(waker), _) => waker.wake(),
            (None, _) => {}
        };
        if !self.inbound.is_empty() || self.ended {
            wake(&mut self.reader);
        }
        if self.outbound.len() < OUTBOUND_BYTES || self.ended {
            wake(&mut self.writer);
        }
        again
    }

    /// Also when the driver is polling its user: it may not look again by itself.
    fn wake_waiting_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }

    fn wake_driver(&mut self, own: &Waker) {
        let looks_again = self.polling && self.driver.as_ref().is_some_and(|driver| driver.will_wake(own));
        if !looks_again && let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }
}

/// The side of who speaks the protocol.
impl Pipe {
    /// A control message that has come.
    pub(super) fn heard(&mut self) -> Option<Utf8Bytes> {
        let was_full = !self.has_room();
        let text = self.heard.pop_front()?;
        if was_full && self.has_room() {
            self.wake_waiting_driver();
        }
        Some(text)
    }

    /// The next control message, or `None` when no more will come.
    pub(super) fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Option<Utf8Bytes>> {
        match self.heard() {
            Some(text) => Poll::Ready(Some(text)),
            None if self.ended => Poll::Ready(None),
            None => {
                self.listener = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Queues what is to be sent.
    pub(super) fn say(&mut self, item: Outbound) -> Result<(), SendError> {
        if self.ended {
            return Err(SendError::Ended);
        }
        if self.said.len() >= CONTROL_QUEUE {
            return Err(SendError::TooSlow);
        }
        self.said.push_back(item);
        self.wake_waiting_driver();
        Ok(())
    }

    /// Nobody listens any more.
    pub(super) fn deafen(&mut self) {
        self.deaf = true;
        self.heard = VecDeque::new();
        self.wake_waiting_driver();
    }
}

/// The byte stream that the binary frames of a WebSocket carry. Where one frame ends and the next begins
/// means nothing.
pub struct TunnelIo {
    pipe: Shared,
}

impl TunnelIo {
    pub(super) fn new(pipe: Shared) -> Self {
        Self { pipe }
    }
}

impl fmt::Debug for TunnelIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelIo").finish_non_exhaustive()
    }
}

impl Drop for TunnelIo {
    fn drop(&mut self) {
        let mut pipe = lock(&self.pipe);
        pipe.abandoned = true;
        pipe.inbound = VecDeque::new();
        pipe.inbound_bytes = 0;
        // What is written still goes out: an HTTP/2 connection says goodbye last.
        pipe.wake_waiting_driver();
    }
}

impl AsyncRead for TunnelIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut pipe = lock(&self.pipe);
        let pipe = &mut *pipe;
        pipe.read = true;
        if pipe.inbound.is_empty() {
            if pipe.ended {
                return Poll::Ready(Ok(()));
            }
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let was_full = !pipe.has_room();
        while let Some(frame) = pipe.inbound.front_mut() {
            let len = frame.len().min(into.remaining());
            if len == 0 {
                break;
            }
            into.put_slice(&frame[..len]);
            pipe.inbound_bytes -= len;
            if len == frame.len() {
                pipe.inbound.pop_front();
            } else {
                frame.advance(len);
            }
        }
        if was_full && pipe.has_room() {
            pipe.wake_waiting_driver();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut pipe = lock(&self.pipe);
        if pipe.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = OUTBOUND_BYTES - pipe.outbound.len();
        if room == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut left = room;
        for slice in slices {
            let len = slice.len().min(left);
            pipe.outbound.extend_from_slice(&slice[..len]);
            left -= len;
        }
        pipe.wake_driver(cx.waker());
        Poll::Ready(Ok(room - left))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The driver sends whatever is there as soon as it can; there is nothing to wait for.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
