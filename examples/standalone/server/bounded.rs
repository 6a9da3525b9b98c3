//! Connections of HTTP/2, whose streams stall one by one and which are idle without a timeout of their own.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use gateway_core::BoxError;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::{HEADER_READ, Patient, Speaks, WRITE_STALL, call};

/// Requests of one connection at the same time, as many as gRPC's clients reckon with; more wait on their side.
const STREAMS: u32 = 128;
/// What is taken of a request that nobody reads yet. With [`STREAMS`] times as much for the connection, a request that
/// waits holds up no other.
const STREAM_WINDOW: u32 = 128 << 10;
/// What is made ready of an answer that its client does not take yet.
const SEND_BUFFER: usize = 64 << 10;
/// How long a connection may be without a request. Clients of gRPC keep theirs open for later, and dial again.
const IDLE: Duration = Duration::from_secs(300);
/// Between two pings, and how long the answer may take: as the AiInference contract has it.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Between two looks at what stands still.
const LOOK: Duration = Duration::from_secs(10);

/// Serves one connection to its end.
pub(super) async fn connection<I, S, B>(
    stream: Patient<I>,
    speaks: Speaks,
    service: S,
    peer: Option<SocketAddr>,
    stop: CancellationToken,
) -> Result<(), BoxError>
where
    I: AsyncRead + AsyncWrite + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAMS * STREAM_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1);
    if speaks == Speaks::Http2 {
        builder = builder.http2_only();
    }
    let streams = Arc::new(Streams::new());
    let counted = streams.clone();
    let service = service_fn(move |request| {
        let open = Open::new(&counted);
        let answering = call(&service, peer, request);
        async move { Ok::<_, Infallible>(answering.await?.map(|body| Answer::new(open, body))) }
    });
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_ending = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = stop.cancelled(), if !is_ending => {
                is_ending = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = looks.tick() => {
                streams.cut_stalled();
                if !is_ending && streams.is_idle() {
                    is_ending = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// The requests of one connection.
struct Streams(Mutex<State>);

struct State {
    next: u64,
    open: usize,
    /// Answers that have begun.
    answers: HashMap<u64, Arc<dyn Stalling>>,
    /// When the last request ended, or the connection began.
    idle_since: Instant,
    is_used: bool,
}

impl Streams {
    fn new() -> Self {
        let idle_since = Instant::now();
        Self(Mutex::new(State { next: 0, open: 0, answers: HashMap::new(), idle_since, is_used: false }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_idle(&self) -> bool {
        let state = self.state();
        let patience = if state.is_used { IDLE } else { HEADER_READ };
        state.open == 0 && state.idle_since.elapsed() >= patience
    }

    /// Ends answers that their clients have not taken for too long, so that their slots are for others.
    fn cut_stalled(&self) {
        // Not dropped under the lock: an answer's end may do much.
        let answers: Vec<_> = self.state().answers.values().cloned().collect();
        answers.iter().for_each(|answer| answer.cut_if_stalled());
    }
}

/// A request, from its arrival to the end of its answer.
struct Open {
    streams: Arc<Streams>,
    number: u64,
}

impl Open {
    fn new(streams: &Arc<Streams>) -> Self {
        let mut state = streams.state();
        state.open += 1;
        state.next += 1;
        state.is_used = true;
        Self { streams: streams.clone(), number: state.next }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.streams.state();
        state.open -= 1;
        state.idle_since = Instant::now();
        let _answer = state.answers.remove(&self.number);
        drop(state);
    }
}

trait Stalling: Send + Sync {
    fn cut_if_stalled(&self);
}

/// An answer's body, which can be taken away from whoever does not read it.
struct Answer<B> {
    held: Arc<Held<B>>,
    _open: Open,
}

struct Held<B>(Mutex<Taken<B>>);

struct Taken<B> {
    /// `None` once it was cut.
    body: Option<B>,
    /// When the last piece was handed out, if no more was asked for since: hyper asks as soon as there is room.
    given: Option<Instant>,
}

impl<B> Held<B> {
    fn lock(&self) -> MutexGuard<'_, Taken<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Body + Send + 'static> Answer<B> {
    fn new(open: Open, body: B) -> Self {
        let held = Arc::new(Held(Mutex::new(Taken { body: Some(body), given: None })));
        open.streams.state().answers.insert(open.number, held.clone());
        Self { held, _open: open }
    }
}

impl<B: Send> Stalling for Held<B> {
    fn cut_if_stalled(&self) {
        let mut taken = self.lock();
        if taken.given.is_some_and(|given| given.elapsed() >= WRITE_STALL) {
            let body = taken.body.take();
            drop(taken);
            drop(body);
        }
    }
}

impl<B> Body for Answer<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut taken = self.held.lock();
        let Some(body) = &mut taken.body else {
            return Poll::Ready(Some(Err("the client took nothing of its answer for too long".into())));
        };
        let polled = Pin::new(body).poll_frame(cx);
        taken.given = matches!(&polled, Poll::Ready(Some(Ok(_)))).then(Instant::now);
        polled.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.held.lock().body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.held.lock().body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use http_body_util::BodyExt;
    use tokio::sync::mpsc;

    use super::*;

    /// Gives what is sent, and can be seen to go.
    struct Fed(mpsc::UnboundedReceiver<Bytes>, #[allow(dead_code, reason = "held")] Arc<()>);

    impl Body for Fed {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
        }
    }

    fn answer(streams: &Arc<Streams>) -> (Answer<Fed>, mpsc::UnboundedSender<Bytes>, Weak<()>) {
        let (send, receive) = mpsc::unbounded_channel();
        let life = Arc::new(());
        let weak = Arc::downgrade(&life);
        (Answer::new(Open::new(streams), Fed(receive, life)), send, weak)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_is_cut_and_no_other() {
        let streams = Arc::new(Streams::new());
        let (mut stalled, feed, life) = answer(&streams);
        let (mut slow, _feed_of_slow, life_of_slow) = answer(&streams);
        feed.send(Bytes::from_static(b"a")).unwrap();
        stalled.frame().await.unwrap().unwrap();
        // The runner of this one is slow: its client has asked for more.
        let asked = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut slow).poll_frame(cx).is_pending()));
        assert!(asked.await);
        tokio::time::advance(WRITE_STALL - Duration::from_secs(1)).await;
        streams.cut_stalled();
        assert!(life.strong_count() > 0, "not yet");
        tokio::time::advance(Duration::from_secs(1)).await;
        streams.cut_stalled();
        assert_eq!((life.strong_count(), life_of_slow.strong_count()), (0, 1));
        let error = stalled.frame().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_nothing_was_asked_for_long() {
        let streams = Arc::new(Streams::new());
        assert!(!streams.is_idle());
        tokio::time::advance(HEADER_READ).await;
        assert!(streams.is_idle(), "nothing was ever asked");
        let (busy, ..) = answer(&streams);
        tokio::time::advance(IDLE).await;
        assert!(!streams.is_idle(), "an answer is under way");
        drop(busy);
        tokio::time::advance(IDLE - Duration::from_secs(1)).await;
        assert!(!streams.is_idle());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(streams.is_idle());
        assert!(streams.state().answers.is_empty());
    }
}
