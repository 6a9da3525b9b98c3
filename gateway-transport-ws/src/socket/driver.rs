//! The future that owns the socket.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::complaint;
use super::control::Outbound;
use super::pipe::{Shared, lock};

/// How long a peer has for its own close frame after ours.
const LINGER: Duration = Duration::from_secs(2);

/// Most frames that are read before others get their turn.
const READ_BUDGET: usize = 64;

/// Why a connection broke. Opaque: its text is for logs.
#[derive(Debug, thiserror::Error)]
#[error("the WebSocket failed")]
pub struct SocketError(#[source] Box<Error>);

/// Owns a WebSocket and moves its frames. Ends when the connection has ended: `Ok` after a close frame from
/// either side. Drop it to cut the connection.
#[must_use = "nothing moves unless the driver is polled"]
pub struct Driver<S> {
    socket: WebSocketStream<S>,
    pipe: Shared,
    unflushed: bool,
    closing: Option<Pin<Box<Sleep>>>,
    /// Our close frame has not gone out yet.
    close_pending: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(super) fn new(socket: WebSocketStream<S>, pipe: Shared) -> Self {
        Self { socket, pipe, unflushed: false, closing: None, close_pending: false }
    }

    /// Drives the socket and, in the same task, `user`: the future that reads and writes the
    /// [`TunnelIo`](super::TunnelIo). Ends when the connection does; when `user` ends first, the connection
    /// goes on without it.
    pub fn beside<F: Future<Output = ()>>(self, user: F) -> Beside<S, F> {
        Beside { driver: self, user: Box::pin(user), user_done: false }
    }

    /// Reads until there is nothing more, there is no room, or others should have their turn.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        for _ in 0..READ_BUDGET {
            {
                let mut pipe = lock(&self.pipe);
                if !pipe.has_room() {
                    pipe.wake_driver_with(cx.waker());
                    return Poll::Pending;
                }
            }
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Text(text))) => {
                    // Nobody wants control messages any more, and that is an end too.
                    if !lock(&self.pipe).hear(text) {
                        return Poll::Ready(Ok(()));
                    }
                }
                Some(Ok(Message::Binary(bytes))) => lock(&self.pipe).push(bytes),
                Some(Ok(Message::Close(_))) => {
                    // Answered below us; after it nothing may be sent. The stream ends next.
                    self.closing.get_or_insert_with(linger);
                }
                // Pings are answered below us too.
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    self.complain(&error, cx);
                    return Poll::Ready(Err(SocketError(Box::new(error))));
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what is there, control messages first at every step, and flushes once.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        let failed = |error| SocketError(Box::new(error));
        loop {
            if self.closing.is_some() {
                return self.poll_close(cx);
            }
            if Pin::new(&mut self.socket).poll_ready(cx).map_err(failed)?.is_pending() {
                return Poll::Pending;
            }
            let mut pipe = lock(&self.pipe);
            let message = match pipe.next_said() {
                Some(Outbound::Text(text)) => Message::Text(text),
                Some(Outbound::Close) => {
                    drop(pipe);
                    self.send_rest()?;
                    self.start_close();
                    continue;
                }
                None => {
                    let Some(chunk) = pipe.take() else {
                        pipe.wake_driver_with(cx.waker());
                        break;
                    };
                    Message::Binary(chunk)
                }
            };
            drop(pipe);
            self.unflushed = true;
            Pin::new(&mut self.socket).start_send(message).map_err(failed)?;
        }
        if self.unflushed && Pin::new(&mut self.socket).poll_flush(cx).map_err(failed)?.is_ready() {
            self.unflushed = false;
        }
        Poll::Pending
    }

    /// Tells a peer that breaks the rules which, if it takes that at once: nothing is waited for on its account.
    fn complain(&mut self, error: &Error, cx: &mut Context<'_>) {
        if let Some(frame) = complaint(error)
            && let Poll::Ready(Ok(())) = Pin::new(&mut self.socket).poll_ready(cx)
            && Pin::new(&mut self.socket).start_send(Message::Close(Some(frame))).is_ok()
        {
            let _ = Pin::new(&mut self.socket).poll_flush(cx);
        }
    }

    /// What a user that is done has written goes out before the close frame. It is at most
    /// [`OUTBOUND_BYTES`](super::OUTBOUND_BYTES), for which the socket's own buffer has room. One that is not
    /// done is cut.
    fn send_rest(&mut self) -> Result<(), SocketError> {
        let mut pipe = lock(&self.pipe);
        while pipe.is_abandoned()
            && let Some(chunk) = pipe.take()
        {
            let sent = Pin::new(&mut self.socket).start_send(Message::Binary(chunk));
            sent.map_err(|error| SocketError(Box::new(error)))?;
        }
        Ok(())
    }

    fn start_close(&mut self) {
        self.closing = Some(linger());
        self.close_pending = true;
    }

    /// Sends the close frame; the end comes with the peer's, which the reading sees, or with the time.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        if self.close_pending && Pin::new(&mut self.socket).poll_close(cx).is_ready() {
            self.close_pending = false;
        }
        match &mut self.closing {
            Some(time_up) => time_up.as_mut().poll(cx).map(Ok),
            None => Poll::Pending,
        }
    }

    /// Passes on the end of the connection.
    fn finish(&mut self, result: Result<(), SocketError>) -> Poll<Result<(), SocketError>> {
        lock(&self.pipe).end();
        Poll::Ready(result)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Driver<S> {
    type Output = Result<(), SocketError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(result) = this.poll_read(cx) {
            return this.finish(result);
        }
        if let Poll::Ready(result) = this.poll_write(cx) {
            return this.finish(result);
        }
        lock(&this.pipe).wake_users(None);
        Poll::Pending
    }
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        lock(&self.pipe).end();
    }
}

fn linger() -> Pin<Box<Sleep>> {
    Box::pin(sleep_until(Instant::now() + LINGER))
}

/// A [`Driver`] and the user of its byte stream in one future.
#[must_use = "nothing moves unless the driver is polled"]
pub struct Beside<S, F> {
    driver: Driver<S>,
    user: Pin<Box<F>>,
    user_done: bool,
}

impl<S, F> Future for Beside<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = ()>,
{
    type Output = Result<(), SocketError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        /// Most rounds in one poll; each moves at least a frame for the user or makes it room.
        const ROUNDS: usize = 8;
        let this = &mut *self;
        for _ in 0..ROUNDS {
            let read = this.driver.poll_read(cx);
            if !this.user_done {
                lock(&this.driver.pipe).set_polling(true);
                this.user_done = this.user.as_mut().poll(cx).is_ready();
                lock(&this.driver.pipe).set_polling(false);
            }
            if let Poll::Ready(result) = read {
                return this.driver.finish(result);
            }
            if let Poll::Ready(result) = this.driver.poll_write(cx) {
                return this.driver.finish(result);
            }
            if !lock(&this.driver.pipe).wake_users(Some(cx.waker())) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
