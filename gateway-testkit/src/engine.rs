//! A runner whose every answer is scripted.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gateway_core::{
    Command, CommandReply, LinkBody, LinkDescription, LinkError, LinkRequest, LinkResponse, ReportedLoad,
    RunnerLink, RunnerStatus,
};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};

use crate::command::{CommandCounts, CommandScript};
use crate::script::{Chunks, Fault, Script, Step};

/// A request as the mock runner saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its head.
    pub head: http::request::Parts,
    /// Its whole body.
    pub body: Bytes,
}

/// What a [`MockEngine`] has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that arrived.
    pub started: u64,
    /// Answers that went out whole, cuts that were scripted included.
    pub finished: u64,
    /// Requests whose other side went away before the end.
    pub aborted: u64,
    /// Bytes of request bodies that have arrived.
    pub body_bytes: u64,
    /// Bytes of answers that were taken.
    pub sent_bytes: u64,
}

impl Counts {
    /// Requests being worked on.
    pub fn active(&self) -> u64 {
        self.started - self.finished - self.aborted
    }
}

/// A runner in process. Clones are the same runner.
#[derive(Clone)]
pub struct MockEngine {
    shared: Arc<Shared>,
}

type Handler = dyn Fn(&Seen) -> Script + Send + Sync;
type CommandHandler = dyn Fn(&Command) -> CommandScript + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    counts: watch::Sender<Counts>,
    status: Mutex<RunnerStatus>,
    seen: Mutex<Option<Seen>>,
    commands: Mutex<Vec<Command>>,
    command_handler: Mutex<Option<Arc<CommandHandler>>>,
    command_counts: watch::Sender<CommandCounts>,
}

impl MockEngine {
    /// A runner that answers each request with the script that `handler` gives for it.
    pub fn new(handler: impl Fn(&Seen) -> Script + Send + Sync + 'static) -> Self {
        let shared = Shared {
            handler: Box::new(handler),
            counts: watch::Sender::new(Counts::default()),
            status: Mutex::default(),
            seen: Mutex::default(),
            commands: Mutex::default(),
            command_handler: Mutex::default(),
            command_counts: watch::Sender::new(CommandCounts::default()),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The way to this runner without any transport.
    pub fn link(&self) -> Arc<dyn RunnerLink> {
        Arc::new(self.clone())
    }

    /// What it has counted so far.
    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Waits until the counts are as wanted. Cancel safe.
    pub async fn until(&self, wanted: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.shared.counts.subscribe();
        // The sender lives in `self`, so the channel is open.
        counts.wait_for(wanted).await.map(|counts| *counts).unwrap_or_default()
    }

    /// The request that came last.
    pub fn last_seen(&self) -> Option<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// The commands that came, in order.
    pub fn commands(&self) -> Vec<Command> {
        lock(&self.shared.commands).clone()
    }

    /// From now on each command ends as `handler` says. Unless set, each is done at once, and the reply has
    /// the status that [`MockEngine::set_status`] has set.
    pub fn script_commands(&self, handler: impl Fn(&Command) -> CommandScript + Send + Sync + 'static) {
        *lock(&self.shared.command_handler) = Some(Arc::new(handler));
    }

    /// What became of the commands so far.
    pub fn command_counts(&self) -> CommandCounts {
        *self.shared.command_counts.borrow()
    }

    /// Waits until what became of the commands is as wanted. Cancel safe.
    pub async fn until_commands(&self, wanted: impl FnMut(&CommandCounts) -> bool) -> CommandCounts {
        let mut counts = self.shared.command_counts.subscribe();
        // The sender lives in `self`, so the channel is open.
        counts.wait_for(wanted).await.map(|counts| *counts).unwrap_or_default()
    }

    /// Sets what it answers to [`Command::Status`]; its load is filled in from the counts.
    pub fn set_status(&self, status: RunnerStatus) {
        *lock(&self.shared.status) = status;
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        self.shared.counts.send_modify(change);
    }

    pub(crate) async fn answer<B>(
        &self,
        request: http::Request<B>,
    ) -> Result<http::Response<MockBody>, LinkError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        self.count(|counts| counts.started += 1);
        let mut guard = Guard { engine: self.clone(), over: false };
        let (head, mut body) = request.into_parts();
        let mut gathered = Vec::new();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|_| LinkError::request_body("the request's body broke off"))?;
            if let Ok(data) = frame.into_data() {
                self.count(|counts| counts.body_bytes += data.len() as u64);
                gathered.extend_from_slice(&data);
            }
        }
        let seen = Seen { head, body: gathered.into() };
        let script = (self.shared.handler)(&seen);
        *lock(&self.shared.seen) = Some(seen);
        if !script.delay.is_zero() {
            sleep(script.delay).await;
        }
        match script.fault {
            Some(Fault::Unreachable) => {
                guard.finish();
                return Err(LinkError::not_sent("scripted"));
            }
            Some(Fault::NoAnswer) => std::future::pending().await,
            Some(Fault::CutBeforeHead) => {
                guard.finish();
                return Err(LinkError::lost("scripted"));
            }
            _ => {}
        }
        let mut response = http::Response::new(());
        *response.status_mut() = script.status;
        *response.headers_mut() = script.headers;
        Ok(response.map(|()| MockBody {
            guard,
            chunks: script.chunks,
            fault: script.fault,
            given: 0,
            interval: script.interval,
            pause: None,
        }))
    }
}

#[async_trait]
impl RunnerLink for MockEngine {
    fn describe(&self) -> LinkDescription {
        LinkDescription { transport: "mock", address: None }
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        Ok(self.answer(request).await?.map(LinkBody::new))
    }

    async fn command(&self, command: Command) -> Result<CommandReply, LinkError> {
        lock(&self.shared.commands).push(command.clone());
        let mut guard = CommandGuard::begin(self.clone());
        let handler = lock(&self.shared.command_handler).clone();
        if let Some(handler) = handler {
            let done = handler(&command).play().await;
            guard.end();
            return done;
        }
        let mut status = lock(&self.shared.status).clone();
        let active = u32::try_from(self.counts().active()).unwrap_or(u32::MAX);
        status.load = Some(ReportedLoad { active, queued: 0 });
        guard.end();
        Ok(CommandReply { result: Ok(()), status: Some(status) })
    }
}

impl fmt::Debug for MockEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MockEngine").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request being worked on; dropped before its end, it was aborted.
struct Guard {
    engine: MockEngine,
    over: bool,
}

impl Guard {
    fn finish(&mut self) {
        if !std::mem::replace(&mut self.over, true) {
            self.engine.count(|counts| counts.finished += 1);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.over {
            self.engine.count(|counts| counts.aborted += 1);
        }
    }
}

/// One command under way; dropped before its end, it was given up.
struct CommandGuard {
    engine: MockEngine,
    over: bool,
}

impl CommandGuard {
    fn begin(engine: MockEngine) -> Self {
        engine.shared.command_counts.send_modify(|counts| counts.started += 1);
        Self { engine, over: false }
    }

    fn end(&mut self) {
        self.over = true;
        self.engine.shared.command_counts.send_modify(|counts| counts.ended += 1);
    }
}

impl Drop for CommandGuard {
    fn drop(&mut self) {
        if !self.over {
            self.engine.shared.command_counts.send_modify(|counts| counts.given_up += 1);
        }
    }
}

pub(crate) struct MockBody {
    guard: Guard,
    chunks: Chunks,
    fault: Option<Fault>,
    given: usize,
    interval: Duration,
    pause: Option<Pin<Box<Sleep>>>,
}

impl MockBody {
    fn pace(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.interval.is_zero() {
            return Poll::Ready(());
        }
        let pause = self.pause.get_or_insert_with(|| Box::pin(sleep(self.interval)));
        ready!(pause.as_mut().poll(cx));
        self.pause = None;
        Poll::Ready(())
    }

    fn cut(&mut self) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        self.guard.finish();
        Poll::Ready(Some(Err(LinkError::lost("scripted"))))
    }
}

impl Body for MockBody {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        let this = &mut *self;
        match this.fault {
            Some(Fault::CutBeforeFirstByte) => {
                // A server drops a head that it has not yet written when the body fails in the same turn.
                if this.pause.is_none() {
                    this.interval = Duration::from_millis(20);
                }
                ready!(this.pace(cx));
                return this.cut();
            }
            Some(Fault::CutAfter(chunks)) if this.given >= chunks => {
                this.interval = this.interval.max(Duration::from_millis(20));
                ready!(this.pace(cx));
                return this.cut();
            }
            Some(Fault::StallAfter(chunks)) if this.given >= chunks => return Poll::Pending,
            _ => {}
        }
        ready!(this.pace(cx));
        let chunk = match &mut this.chunks {
            Chunks::Fixed(chunks) => chunks.next(),
            Chunks::Whole(whole) => Some(std::mem::take(whole)).filter(|whole| !whole.is_empty()),
            Chunks::Sent(receiver) => match ready!(receiver.poll_recv(cx)) {
                Some(Step::Chunk(chunk)) => Some(chunk),
                Some(Step::Cut) => return this.cut(),
                None => None,
            },
        };
        let Some(chunk) = chunk else {
            this.guard.finish();
            return Poll::Ready(None);
        };
        this.given += 1;
        this.guard.engine.count(|counts| counts.sent_bytes += chunk.len() as u64);
        if this.is_end_stream() {
            this.guard.finish();
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.fault.is_none() && matches!(&self.chunks, Chunks::Whole(whole) if whole.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.chunks {
            Chunks::Whole(whole) if self.fault.is_none() => SizeHint::with_exact(whole.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

impl Drop for MockBody {
    fn drop(&mut self) {
        if self.is_end_stream() {
            self.guard.finish();
        }
    }
}
