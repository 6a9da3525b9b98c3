//! The text of one answer, out of the messages of its call.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use gateway_core::LinkError;
use tokio::time::{Instant, Sleep, sleep};
use tonic::Code;

use super::call::{Call, CallError, End, Event};
use crate::status::WorkerStatus;
use crate::translate::{LOADING, Piece, PieceError, Sink, Stop, Told};

/// How long a worker may take from its last message to its trailers. Longer, and the answer is complete without
/// what they would have told.
const TRAILERS: Duration = Duration::from_secs(1);

/// How many messages without text are taken in one go: a worker that sends nothing else has to let others run.
const IDLE_MESSAGES: usize = 128;

/// Reads a `StreamPredict` to its end. Dropping it cancels the call.
pub(super) struct Reader {
    /// `None` when there is nothing more to come.
    call: Option<Call>,
    stop: Option<Stop>,
    due: Option<Instant>,
    /// Text has come. Before that, what tells of loading is left out.
    begun: bool,
    /// Set with the last message, for the trailers.
    patience: Option<Pin<Box<Sleep>>>,
}

/// What a step came to.
pub(super) enum Step {
    /// Text went into the sink.
    Text,
    /// It is complete.
    Done(Told),
}

/// Why an answer is not complete.
#[derive(Debug)]
pub(super) enum Fault {
    /// The worker says so.
    Status(WorkerStatus),
    Link(LinkError),
}

impl Fault {
    pub(super) fn into_link_error(self) -> LinkError {
        match self {
            Self::Status(status) => LinkError::lost("the worker broke the answer off").because(status),
            Self::Link(error) => error,
        }
    }
}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        Self::Link(error.into())
    }
}

impl From<PieceError> for Fault {
    fn from(error: PieceError) -> Self {
        Self::Link(LinkError::lost("the worker's answer makes no sense").because(error))
    }
}

impl Reader {
    /// `due`: when the time that the request gives is up, which the worker knows.
    pub(super) fn new(call: Call, stop: Vec<String>, due: Option<Instant>) -> Self {
        Self { call: Some(call), stop: Stop::new(stop), due, begun: false, patience: None }
    }

    /// What the worker's own word on its failure means.
    fn status(&self, status: WorkerStatus) -> Fault {
        // A worker that is told how long it has and keeps to it does no wrong.
        if status.code == Code::DeadlineExceeded && self.is_due() {
            return Fault::Link(LinkError::deadline("the worker has stopped").because(status));
        }
        Fault::Status(status)
    }

    /// What it means that the call broke off.
    fn broken(&self, error: CallError) -> Fault {
        match error {
            // Some servers say so by resetting the call.
            CallError::Lost(reset) if reset.is_reset() && self.is_due() => {
                Fault::Link(LinkError::deadline("the worker has stopped").because(reset))
            }
            error => error.into(),
        }
    }

    fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    /// Reads on until text has gone into `sink`, or the end. Not to be polled after the end or a fault.
    pub(super) fn poll_step(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut impl Sink,
    ) -> Poll<Result<Step, Fault>> {
        for _ in 0..IDLE_MESSAGES {
            let Some(call) = &mut self.call else { return Poll::Ready(Ok(Step::Done(Told::default()))) };
            if let Some(patience) = &mut self.patience {
                // Its text is complete: no trouble on the last yard changes that, but the worker's own word.
                let told = match call.poll_next(cx) {
                    Poll::Ready(Ok(Event::Message(_))) => continue,
                    Poll::Ready(Ok(Event::End(End { status, .. }))) if !status.is_ok() => {
                        return Poll::Ready(Err(self.status(status)));
                    }
                    Poll::Ready(Ok(Event::End(End { trailers, .. }))) => Told::read(&trailers),
                    Poll::Ready(Err(_)) => Told::default(),
                    Poll::Pending => {
                        ready!(patience.as_mut().poll(cx));
                        Told::default()
                    }
                };
                self.call = None;
                return Poll::Ready(Ok(Step::Done(told)));
            }
            let piece = match ready!(call.poll_next(cx)).map_err(|error| self.broken(error))? {
                Event::Message(message) => Piece::decode(message)?,
                Event::End(End { status, .. }) => {
                    self.call = None;
                    return Poll::Ready(Err(if status.is_ok() {
                        Fault::Link(LinkError::lost("the answer ended without its last message"))
                    } else {
                        self.status(status)
                    }));
                }
            };
            if self.take(&piece, sink)? {
                return Poll::Ready(Ok(Step::Text));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether there was anything in it.
    fn take(&mut self, piece: &Piece, sink: &mut impl Sink) -> Result<bool, PieceError> {
        let text = piece.text()?;
        let is_text = !text.is_empty() && (self.begun || !text.starts_with(LOADING));
        self.begun |= is_text;
        if is_text {
            match &mut self.stop {
                None => sink.text(text),
                Some(stop) => {
                    if stop.text(text, sink) {
                        // Nobody wants the rest: this cancels it.
                        self.call = None;
                        return Ok(true);
                    }
                }
            }
        }
        if piece.is_last {
            if let Some(stop) = &mut self.stop {
                stop.end(sink);
            }
            self.patience = Some(Box::pin(sleep(TRAILERS)));
        }
        Ok(is_text)
    }
}
