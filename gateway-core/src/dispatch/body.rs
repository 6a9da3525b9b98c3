//! The answer's body on its way to the client.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::attempt::Try;
use super::drain::InFlight;
use super::error::BodyError;
use super::outcome::{Cancel, Fault, Outcome};
use crate::body::LinkBody;
use crate::permit::Permit;
use crate::stream::Progress;

/// The body of an answer. It owns the reservation and the permit: both are given back when it ends, fails
/// or is dropped, whichever comes first; dropping it before its end cancels the work on the runner.
///
/// The [deadlines](super::Deadlines) hold while it is polled: who asks for no chunks is
/// not cut off by them. How long a client may take to read is for the server to bound.
#[must_use = "dropping the body cancels the request"]
pub struct DispatchBody(Box<Answer>);

/// A try, and from its head on the answer to it. In one box from the reservation to the end of the body: it goes from
/// hand to hand.
pub(super) struct Answer {
    /// Until it is passed on.
    pub(super) head: Option<http::response::Parts>,
    /// Read before the head is passed on, to know that the answer has begun.
    pub(super) first: Option<Frame<Bytes>>,
    /// `None` before the head is here, and once ended, so that link and slot are free before the client is done reading.
    pub(super) body: Option<LinkBody>,
    pub(super) attempt: Try,
    /// What a whole answer with this status amounts to.
    pub(super) outcome: Outcome,
    limits: Limits,
    held: Option<(Permit, Option<InFlight>)>,
}

#[derive(Default)]
struct Limits {
    idle: Option<Duration>,
    total: Option<Instant>,
    /// Since when the runner has been waited for. While nobody asks for a chunk it is the client that is silent.
    pending_since: Option<Instant>,
    /// While the request's own body moves, nothing stands still.
    upload: Option<Progress>,
    /// Made when the body first has to wait: an answer that is here at once needs no timer.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Limits {
    fn idle_until(&self, since: Instant) -> Option<Instant> {
        let upload = self.upload.as_ref().and_then(Progress::last);
        upload.map_or(since, |upload| upload.max(since)).checked_add(self.idle?)
    }

    fn next(&self, since: Instant) -> Option<Instant> {
        self.idle_until(since).into_iter().chain(self.total).min()
    }

    /// Pending, or ready with the limit that passed.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let since = *self.pending_since.get_or_insert_with(Instant::now);
        let Some(next) = self.next(since) else { return Poll::Pending };
        let mut timer = self.timer.take().unwrap_or_else(|| Box::pin(tokio::time::sleep_until(next)));
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if self.total.is_some_and(|total| total <= now) {
                return Poll::Ready(Outcome::Cancelled(Cancel::Deadline));
            }
            // Chunks do not touch the timer; it looks at their time when it fires.
            if self.idle_until(since).is_some_and(|idle| idle <= now) {
                return Poll::Ready(Outcome::RunnerFault(Fault::IdleTimeout));
            }
            timer.as_mut().reset(self.next(since).unwrap_or(next));
        }
        self.timer = Some(timer);
        Poll::Pending
    }
}

impl Answer {
    /// That there may be to a try which begins. `upload`: how far the request's body has come, if it is a stream.
    pub(super) fn to(attempt: Try, upload: Option<Progress>) -> Box<Self> {
        Box::new(Self {
            head: None,
            first: None,
            body: None,
            attempt,
            outcome: Outcome::Success,
            limits: Limits { upload, ..Limits::default() },
            held: None,
        })
    }

    pub(super) fn upload(&self) -> Option<&Progress> {
        self.limits.upload.as_ref()
    }

    /// Its body, which owns `held` from now on.
    pub(super) fn into_body(
        mut self: Box<Self>,
        (idle, total): (Option<Duration>, Option<Instant>),
        held: (Permit, Option<InFlight>),
    ) -> DispatchBody {
        (self.limits.idle, self.limits.total) = (idle, total);
        self.held = Some(held);
        if self.first.is_none() {
            self.end_if_complete();
        }
        DispatchBody(self)
    }

    fn is_end(&self) -> bool {
        self.first.is_none() && self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    /// Gives everything back at once when the last chunk has been handed out: servers need not ask again.
    fn end_if_complete(&mut self) {
        if self.body.as_ref().is_some_and(Body::is_end_stream) {
            self.end(self.outcome);
        }
    }

    fn end(&mut self, outcome: Outcome) {
        self.body = None;
        self.limits.timer = None;
        self.attempt.finish(outcome);
        self.held = None;
    }

    fn pass(&mut self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(data) = frame.data_ref() {
            self.attempt.bytes += data.len() as u64;
            self.attempt.chunks = self.attempt.chunks.saturating_add(1);
        }
        self.end_if_complete();
        Poll::Ready(Some(Ok(frame)))
    }

    fn fail(
        &mut self,
        outcome: Outcome,
        source: Option<crate::link::LinkError>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let error = BodyError::new(self.attempt.runner().id(), self.attempt.request_id(), outcome, source);
        self.end(outcome);
        Poll::Ready(Some(Err(error)))
    }
}

impl Body for DispatchBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self.0;
        if let Some(first) = this.first.take() {
            return this.pass(first);
        }
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        match Pin::new(body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let now = Instant::now();
                // Looked at here as well: an answer that always has a chunk ready never waits for the timer.
                if this.limits.total.is_some_and(|total| total <= now) {
                    return this.fail(Outcome::Cancelled(Cancel::Deadline), None);
                }
                this.limits.pending_since = None;
                this.pass(frame)
            }
            Poll::Ready(Some(Err(error))) => {
                // The rest of a streamed request may break off after the answer has begun.
                let outcome = if error.is_request_body() {
                    Outcome::ClientFault
                } else if error.is_deadline() {
                    Outcome::Cancelled(Cancel::Deadline)
                } else {
                    Outcome::RunnerFault(Fault::Connection)
                };
                this.fail(outcome, Some(error))
            }
            Poll::Ready(None) => {
                this.end(this.outcome);
                Poll::Ready(None)
            }
            Poll::Pending => match this.limits.poll(cx) {
                Poll::Ready(outcome) => this.fail(outcome, None),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.0.first.as_ref().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64);
        let rest = self.0.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + ahead);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + ahead);
        }
        hint
    }
}

impl Drop for DispatchBody {
    fn drop(&mut self) {
        // All chunks were handed out, though nobody asked for the end: that is success.
        if self.0.is_end() {
            self.0.end(self.0.outcome);
        }
    }
}

impl fmt::Debug for DispatchBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DispatchBody").field("runner", self.0.attempt.runner().key()).finish_non_exhaustive()
    }
}
