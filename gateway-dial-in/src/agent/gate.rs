//! The runner's slots, shared by every gateway that it has dialled.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use gateway_core::{
    Command, CommandReply, LinkBody, LinkDescription, LinkError, LinkRequest, LinkResponse, RunnerLink,
};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

/// Stands before the engine: counts what is on it, and refuses what is too much. Each gateway minds the
/// slots by itself and knows nothing of the others; only the runner sees them all.
pub(super) struct Gate {
    engine: Arc<dyn RunnerLink>,
    count: Arc<Count>,
    /// Whether a request has come to this gate, let in or not.
    used: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Count {
    in_flight: AtomicU32,
    /// `u32::MAX` without a limit.
    slots: u32,
    closed: AtomicBool,
    idle: Notify,
}

/// One request that is on the engine. Dropping it is the only way to give its slot back.
#[derive(Debug)]
struct Pass(Arc<Count>);

/// Why a request was not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Full,
    Closed,
}

impl Count {
    fn enter(self: &Arc<Self>) -> Result<Pass, Refused> {
        let next = |now: u32| (now < self.slots).then(|| now + 1);
        if self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_err() {
            return Err(Refused::Full);
        }
        let pass = Pass(self.clone());
        // Looked at after the count: whoever closes and then reads zero has missed nobody.
        if self.closed.load(Ordering::SeqCst) { Err(Refused::Closed) } else { Ok(pass) }
    }

    /// Requests on the engine now that came through any of the tunnels.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Lets nothing new in from now on.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Waits until nothing is on the engine. Cancel safe.
    pub(super) async fn idle(&self) {
        loop {
            let mut woken = std::pin::pin!(self.idle.notified());
            // Registered before the check, so that a signal between check and wait is not lost.
            woken.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            woken.await;
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl Gate {
    pub(super) fn new(engine: Arc<dyn RunnerLink>, slots: Option<NonZeroU32>) -> Self {
        let count = Count {
            in_flight: AtomicU32::new(0),
            slots: slots.map_or(u32::MAX, NonZeroU32::get),
            closed: AtomicBool::new(false),
            idle: Notify::new(),
        };
        Self { engine, count: Arc::new(count), used: AtomicBool::new(false) }
    }

    /// Another gate to the same engine and the same slots.
    pub(super) fn another(&self) -> Self {
        Self { engine: self.engine.clone(), count: self.count.clone(), used: AtomicBool::new(false) }
    }

    pub(super) fn was_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self) -> &Arc<Count> {
        &self.count
    }
}

#[async_trait]
impl RunnerLink for Gate {
    fn describe(&self) -> LinkDescription {
        self.engine.describe()
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        self.used.store(true, Ordering::Relaxed);
        let pass = match self.count.enter() {
            Ok(pass) => pass,
            Err(refused) => return Ok(refuse(refused)),
        };
        let response = self.engine.send(request).await?;
        Ok(response.map(|inner| LinkBody::new(Counted::new(inner, pass))))
    }

    async fn command(&self, command: Command) -> Result<CommandReply, LinkError> {
        self.engine.command(command).await
    }

    // `close` stays without effect: one gateway's end must not close the engine for the others.
}

/// A refusal in the words that runners use; both kinds may be tried elsewhere at once.
fn refuse(refused: Refused) -> LinkResponse {
    const FULL: &str = r#"{"error":{"type":"engine_unavailable","message":"Every slot of this runner is taken; try again, or another runner"}}"#;
    const CLOSED: &str = r#"{"error":{"type":"engine_unavailable","message":"This runner is shutting down; try another runner"}}"#;
    let (text, seconds) = match refused {
        Refused::Full => (FULL, "1"),
        Refused::Closed => (CLOSED, "5"),
    };
    let mut response = Response::new(LinkBody::full(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(seconds));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer's body that gives the slot back as soon as the engine is done with it.
struct Counted {
    held: Option<(LinkBody, Pass)>,
}

impl Counted {
    fn new(body: LinkBody, pass: Pass) -> Self {
        let mut this = Self { held: Some((body, pass)) };
        this.release_at_end();
        this
    }

    /// Servers need not ask for what comes after the last chunk, and a slow reader of chunks that are
    /// handed out already keeps no slot.
    fn release_at_end(&mut self) {
        if self.is_end_stream() {
            self.held = None;
        }
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        let Some((body, _)) = &mut self.held else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(_))) => self.release_at_end(),
            Poll::Ready(None | Some(Err(_))) => self.held = None,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.held.as_ref().is_none_or(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.held.as_ref().map_or(SizeHint::with_exact(0), |(body, _)| body.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;

    fn count(slots: u32) -> Arc<Count> {
        struct Nothing;
        #[async_trait]
        impl RunnerLink for Nothing {
            fn describe(&self) -> LinkDescription {
                LinkDescription { transport: "none", address: None }
            }
            async fn send(&self, _: LinkRequest) -> Result<LinkResponse, LinkError> {
                Err(LinkError::not_sent("nothing is here"))
            }
        }
        Gate::new(Arc::new(Nothing), NonZeroU32::new(slots)).count().clone()
    }

    #[test]
    fn no_more_pass_than_there_are_slots() {
        let count = count(2);
        let first = count.enter().unwrap();
        let _second = count.enter().unwrap();
        assert_eq!(count.enter().unwrap_err(), Refused::Full);
        drop(first);
        assert!(count.enter().is_ok());
    }

    #[test]
    fn without_slots_nothing_is_refused() {
        let count = count(0);
        let passes: Vec<Pass> = (0..10_000).map(|_| count.enter().unwrap()).collect();
        assert_eq!(count.in_flight(), 10_000);
        drop(passes);
        assert_eq!(count.in_flight(), 0);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_storm_never_exceeds_the_slots_and_ends_at_zero() {
        let count = count(3);
        let tasks = (0..64).map(|_| {
            let count = count.clone();
            tokio::spawn(async move {
                for _ in 0..200 {
                    if let Ok(_pass) = count.enter() {
                        assert!(count.in_flight() <= 3);
                        tokio::task::yield_now().await;
                    }
                }
            })
        });
        for task in join_all(tasks).await {
            task.unwrap();
        }
        count.idle().await;
        assert_eq!(count.in_flight(), 0);
    }

    #[tokio::test]
    async fn closed_lets_nobody_in_and_waits_for_those_inside() {
        let count = count(2);
        let pass = count.enter().unwrap();
        count.close();
        assert_eq!(count.enter().unwrap_err(), Refused::Closed);
        assert_eq!(count.in_flight(), 1);
        let (idle, ()) = tokio::join!(
            async {
                count.idle().await;
                count.in_flight()
            },
            async { drop(pass) }
        );
        assert_eq!(idle, 0);
    }
}
