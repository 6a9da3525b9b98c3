//! One connection, driven by whoever waits for its answer.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::alarm::Alarm;
use super::outgoing::Outgoing;
use super::pool::Seat;

type Http1 = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

/// The end that holds the socket. It is apart from [`Connection`] so that the pool can cut it.
pub(super) struct Wire {
    /// `None` once it is over. The lock is held for one poll, never longer.
    http: Mutex<Option<Http1>>,
}

impl Wire {
    /// Closes the socket. Whoever waits for it is woken: its end of hyper's channels is dropped.
    pub(super) fn cut(&self) {
        let http = self.http.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(http);
    }

    /// Lets the connection read and write what it can. `false` once it is over.
    fn turn(&self, cx: &mut Context<'_>) -> bool {
        let mut http = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = http.as_mut() else { return false };
        if running.as_mut().poll(cx).is_pending() {
            return true;
        }
        // What went wrong reaches us through the answer or its body as well.
        let over = http.take();
        drop(http);
        drop(over);
        false
    }
}

/// A connection that one request has for itself, or the pool. Dropping it closes the socket at once.
///
/// There is no task behind it: it moves only while it is polled. That spares two changes of task for every
/// request and every chunk, makes a cancel take effect before the drop returns, and leaves what nobody
/// reads with the runner.
pub(super) struct Connection {
    sender: http1::SendRequest<Outgoing>,
    wire: Arc<Wire>,
    alarm: Arc<Alarm>,
    waker: Waker,
    /// Dropped last: it takes the pool's hold on the wire along, and so closes the socket.
    _seat: Seat,
}

/// hyper's promise of an answer's head.
pub(super) trait Head:
    Future<Output = Result<http::Response<Incoming>, TrySendError<http::Request<Outgoing>>>> + Send
{
}

impl<F> Head for F where
    F: Future<Output = Result<http::Response<Incoming>, TrySendError<http::Request<Outgoing>>>> + Send
{
}

/// Why there is no head.
pub(super) struct Failure {
    /// The request, if not a byte of it was written.
    pub(super) unsent: Option<Box<http::Request<Outgoing>>>,
    pub(super) error: hyper::Error,
}

impl Connection {
    pub(super) async fn open(stream: TcpStream, alarm: Arc<Alarm>, seat: Seat) -> Result<Self, hyper::Error> {
        let (sender, http) = http1::Builder::new().handshake(TokioIo::new(stream)).await?;
        let wire = Arc::new(Wire { http: Mutex::new(Some(Box::pin(http.with_upgrades()))) });
        Ok(Self { sender, wire, waker: Waker::from(alarm.clone()), alarm, _seat: seat })
    }

    pub(super) fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    /// Hands a request over, to be written when the head is [polled](Connection::poll_head) for.
    pub(super) fn send(&mut self, request: http::Request<Outgoing>) -> impl Head + use<> {
        // From here on it is no longer idle: handing the request over rings the alarm.
        self.alarm.begin();
        self.sender.try_send_request(request)
    }

    /// Writes the request, and reads the head of the answer.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        mut head: Pin<&mut impl Head>,
    ) -> Poll<Result<http::Response<Incoming>, Failure>> {
        drive(&self.wire, &self.alarm, &self.waker, cx, |cx| head.as_mut().poll(cx)).map_err(|mut failed| {
            Failure { unsent: failed.take_message().map(Box::new), error: failed.into_error() }
        })
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn exchange(
        &mut self,
        request: http::Request<Outgoing>,
    ) -> Result<http::Response<Incoming>, Failure> {
        let mut head = pin!(self.send(request));
        poll_fn(|cx| self.poll_head(cx, head.as_mut())).await
    }

    /// Waits for the socket of a connection whose runner has changed to another protocol.
    pub(super) async fn upgraded(&mut self, changing: OnUpgrade) -> Result<Upgraded, hyper::Error> {
        let mut changing = pin!(changing);
        let (wire, alarm, waker) = (&self.wire, &self.alarm, &self.waker);
        poll_fn(|cx| drive(wire, alarm, waker, cx, |cx| changing.as_mut().poll(cx))).await
    }

    /// Reads the next frame of the answer's body.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Incoming,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, hyper::Error>>> {
        use http_body::Body;
        // Servers ask once more than there is something to write. Then the next waker is all that can be new.
        if self.alarm.is_quiet() {
            self.alarm.watch(cx.waker());
            if self.alarm.is_quiet() {
                return Poll::Pending;
            }
        }
        // The head often brings the first chunk along: then there is nothing to drive.
        self.alarm.begin();
        let mut own = Context::from_waker(&self.waker);
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(&mut own) {
            return Poll::Ready(frame);
        }
        drive(&self.wire, &self.alarm, &self.waker, cx, |cx| Pin::new(&mut *body).poll_frame(cx))
    }

    /// Whether it can take another request, after the answer's body has ended.
    pub(super) fn settle(&mut self) -> bool {
        if self.sender.is_ready() {
            return true;
        }
        self.alarm.begin();
        self.wire.turn(&mut Context::from_waker(&self.waker)) && self.sender.is_ready()
    }

    /// Makes ready for the pool.
    pub(super) fn rest(&self) {
        self.alarm.rest();
    }

    /// Whether nothing has been heard of it since it rests. An idle connection has nothing to say but its
    /// end, so anything heard makes it useless.
    pub(super) fn is_fresh(&self) -> bool {
        !self.alarm.rang() && self.sender.is_ready()
    }
}

/// Polls the connection and then `step`, again if that gave the connection something to do, until `step`
/// is done or both wait for the socket.
fn drive<T>(
    wire: &Wire,
    alarm: &Alarm,
    waker: &Waker,
    cx: &mut Context<'_>,
    mut step: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    /// More turns than any exchange needs; a wake-up that repeats (tokio's task budget is used up) must
    /// reach the scheduler.
    const TURNS: u32 = 4;
    alarm.watch(cx.waker());
    let mut own = Context::from_waker(waker);
    for _ in 0..TURNS {
        alarm.begin();
        wire.turn(&mut own);
        if let Poll::Ready(done) = step(&mut own) {
            return Poll::Ready(done);
        }
        if !alarm.end() {
            return Poll::Pending;
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}
