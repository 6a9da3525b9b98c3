//! A modelled runner behind the gateway's own link: takes requests, answers with tokens in time, dies if told to.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gateway_core::{
    LinkBody, LinkDescription, LinkError, LinkRequest, LinkResponse, ReportedLoad, RunnerLink,
};
use http_body::{Body, Frame};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::engine::{Engine, Event, Job, Nanos};
use super::log::Log;

/// Virtual time since the start of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(&self) -> Nanos {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
    }

    pub(crate) fn at(&self, time: Nanos) -> Instant {
        self.0 + Duration::from_nanos(time)
    }
}

/// One runner. The engine's figures are exact; what the gateway sees of them is rounded up to the millisecond, which is
/// as fine as tokio's timers are.
pub(crate) struct ModelledRunner {
    state: Mutex<State>,
    changed: Notify,
    clock: Clock,
    log: Arc<Log>,
    number: usize,
}

struct State {
    engine: Engine,
    streams: BTreeMap<usize, Arc<Stream>>,
    events: Vec<Event>,
    alive: bool,
}

impl ModelledRunner {
    pub(crate) fn new(number: usize, engine: Engine, clock: Clock, log: Arc<Log>) -> Arc<Self> {
        let state = State { engine, streams: BTreeMap::new(), events: Vec::new(), alive: true };
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new(), clock, log, number })
    }

    /// Lets time pass on the runner. Runs until it is dropped.
    pub(crate) async fn drive(self: Arc<Self>) {
        loop {
            let next = self.look(Engine::next);
            match next {
                Some(next) => {
                    let _ = tokio::time::timeout_at(self.clock.at(next), self.changed.notified()).await;
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// The engine as it is at this moment.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&Engine) -> T) -> T {
        at(&self.state().engine)
    }

    /// What it would say of its load.
    pub(crate) fn load(&self) -> ReportedLoad {
        let (active, queued) = self.look(Engine::load);
        ReportedLoad { active, queued }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.state().alive
    }

    /// The process dies: every answer breaks off, and nothing can be sent any more.
    pub(crate) fn kill(&self) {
        let mut state = self.state();
        state.alive = false;
        for (job, stream) in std::mem::take(&mut state.streams) {
            state.engine.cancel(job);
            stream.set(|progress| progress.broken = true);
        }
    }

    /// It is started anew, with nothing in its cache.
    pub(crate) fn revive(&self, engine: Engine) {
        let mut state = self.state();
        let done = state.engine.done();
        state.engine = engine;
        state.engine.resume(self.clock.now(), done);
        state.alive = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        state.engine.advance(self.clock.now(), &mut state.events);
        for event in state.events.drain(..) {
            self.log.event(self.number, &event);
            let Some(stream) = state.streams.get(&event.job) else { continue };
            stream.set(|progress| (progress.tokens, progress.whole) = (event.tokens, event.done));
            if event.done {
                state.streams.remove(&event.job);
            }
        }
        guard
    }

    fn cancel(&self, job: usize) {
        let mut state = self.state();
        if state.streams.remove(&job).is_some() {
            state.engine.cancel(job);
            self.changed.notify_one();
        }
    }
}

/// The modelled runner as a link, with a way back to itself for the answers' bodies.
pub(crate) struct ModelledLink(pub(crate) Arc<ModelledRunner>);

#[async_trait]
impl RunnerLink for ModelledLink {
    fn describe(&self) -> LinkDescription {
        LinkDescription { transport: "modelled", address: None }
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        let Some(job) = request.extensions().get::<Job>().cloned() else {
            return Err(LinkError::lost("a modelled runner takes modelled requests only"));
        };
        let id = job.id;
        let stream = Arc::new(Stream::default());
        {
            let mut state = self.0.state();
            if !state.alive {
                return Err(LinkError::not_sent("the runner is dead"));
            }
            if !state.engine.fits(&job) {
                let mut refused = http::Response::new(LinkBody::full("longer than the runner's memory"));
                *refused.status_mut() = http::StatusCode::BAD_REQUEST;
                return Ok(refused);
            }
            state.streams.insert(id, stream.clone());
            state.engine.submit(job);
        }
        self.0.changed.notify_one();
        // As engines do, the head comes before the work has begun.
        Ok(http::Response::new(LinkBody::new(Answer { runner: self.0.clone(), job: id, stream, passed: 0 })))
    }
}

/// How far one answer is.
#[derive(Default)]
struct Stream(Mutex<Progress>);

#[derive(Default)]
struct Progress {
    tokens: u32,
    whole: bool,
    broken: bool,
    reader: Option<Waker>,
}

impl Stream {
    fn set(&self, change: impl FnOnce(&mut Progress)) {
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut progress);
        if let Some(reader) = progress.reader.take() {
            reader.wake();
        }
    }

    fn get<T>(&self, of: impl FnOnce(&mut Progress) -> T) -> T {
        of(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One chunk per token, as engines send them; they come in bursts of at most [`Engine::PROGRESS`].
struct Answer {
    runner: Arc<ModelledRunner>,
    job: usize,
    stream: Arc<Stream>,
    passed: u32,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        let passed = self.passed;
        let next = self.stream.get(|progress| {
            if passed < progress.tokens {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b".")))));
            }
            if progress.broken {
                return Poll::Ready(Some(Err(LinkError::lost("the runner died"))));
            }
            if progress.whole {
                return Poll::Ready(None);
            }
            progress.reader = Some(cx.waker().clone());
            Poll::Pending
        });
        if matches!(next, Poll::Ready(Some(Ok(_)))) {
            self.passed += 1;
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.stream.get(|progress| progress.whole && self.passed == progress.tokens)
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.stream.get(|progress| progress.whole || progress.broken) {
            self.runner.cancel(self.job);
        }
    }
}
