//! The loop: find a runner, send; again elsewhere if nothing has begun.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::attempt::Try;
use super::body::Answer;
use super::choose::Choice;
use super::drain::InFlight;
use super::error::{DispatchError, DispatchErrorKind};
use super::find::NotFound;
use super::limits::{Deadlines, RetryPolicy};
use super::plan::Plan;
use super::send::{Conditions, Failed, Failure, Sent, is_upgraded};
use super::terms::{NotRepeatable, Terms};
use super::waiting::Claim;
use super::{Dispatch, Dispatched, Shared};
use crate::balance::Tried;
use crate::body::RequestBody;
use crate::link::LinkError;
use crate::names::{RequestId, RunnerKey};
use crate::permit::Permit;
use crate::runner::Runner;
use crate::upgrade::UpgradeTo;

/// One request on its way.
pub(super) struct Journey<'s> {
    pub(super) shared: &'s Arc<Shared>,
    pub(super) id: RequestId,
    pub(super) plan: Plan,
    pub(super) claim: Claim,
    head: http::request::Parts,
    body: RequestBody,
    terms: Terms,
    deadlines: Deadlines,
    pub(super) total: Option<Instant>,
    pub(super) tried: Vec<Tried>,
    failures: u32,
    /// How many runners had too much to do.
    overloaded: u32,
    last: Option<Failed>,
    /// The time that was read when the request came, until it is used.
    arrived: Option<Instant>,
    /// Time spent in the queue, and waiting for models.
    pub(super) waited: Duration,
    /// Of that, in the queue.
    pub(super) queued: Duration,
    pub(super) hedged: bool,
    permit: Permit,
    /// `None` if it came too late; else until it goes along with the answer.
    in_flight: Option<InFlight>,
}

/// Begins at once; only the waiting is left to the future. What a request takes along is moved into it once: the state of
/// an `async fn` would keep its arguments and its own copy of them side by side.
pub(super) fn run(
    shared: &Arc<Shared>,
    call: Dispatch,
) -> impl Future<Output = Result<Dispatched, DispatchError>> + Send + '_ {
    let mut journey = Journey::new(shared, call);
    async move {
        if journey.in_flight.is_none() {
            return Err(journey.refused());
        }
        match journey.go().await {
            Ok(answer) => Ok(journey.dispatched(answer)),
            Err(not_found) => journey.give_up(not_found),
        }
    }
}

impl<'s> Journey<'s> {
    fn new(shared: &'s Arc<Shared>, call: Dispatch) -> Self {
        let Dispatch { id, request, requirements, claim, permit, terms } = call;
        let in_flight = shared.drain.enter();
        let now = Instant::now();
        if in_flight.is_some() {
            shared.budgets.deposit(now);
        }
        let (head, body) = request.into_parts();
        let deadlines = terms.deadlines.unwrap_or(shared.deadlines);
        Self {
            shared,
            id,
            plan: Plan::new(requirements, &shared.routes, now),
            claim,
            head,
            body,
            terms,
            deadlines,
            total: deadlines.total.and_then(|total| now.checked_add(total)),
            tried: Vec::new(),
            failures: 0,
            overloaded: 0,
            last: None,
            arrived: Some(now),
            waited: Duration::ZERO,
            queued: Duration::ZERO,
            hedged: false,
            permit,
            in_flight,
        }
    }

    /// Nothing new is taken.
    fn refused(&self) -> DispatchError {
        let model = self.plan.named().model.as_ref();
        let error = DispatchError::new(DispatchErrorKind::Draining, &self.id, model);
        error.retrying_after(Duration::from_secs(5))
    }
}

impl Journey<'_> {
    async fn go(&mut self) -> Result<Box<Answer>, Option<NotFound>> {
        loop {
            let now = self.arrived.take().unwrap_or_else(Instant::now);
            let (choice, now) = match self.find_at_once(now) {
                Some(choice) => (choice, now),
                // Boxed: few requests have to wait, and all would carry its size.
                None => (Box::pin(self.find()).await.map_err(Some)?, Instant::now()),
            };
            let runner = choice.reservation.runner().clone();
            let hedge = self.shared.hedge.filter(|_| self.terms.repeatable && self.body.can_replay());
            let answer = match hedge {
                // Boxed: few requests need what it holds.
                Some(policy) => Box::pin(self.send_hedged(choice, &runner, policy)).await,
                None => match self.send(choice, &runner, now) {
                    Some(sent) => {
                        let done = sent.begun().await;
                        self.note(done)
                    }
                    None => None,
                },
            };
            if let Some(answer) = answer {
                return Ok(answer);
            }
            if !self.may_try_again().await {
                return Err(None);
            }
        }
    }

    /// Gives the runner's link the request as that runner is to see it. `None` if the body has gone.
    pub(super) fn send<'r>(
        &mut self,
        choice: Choice,
        runner: &'r Arc<Runner>,
        now: Instant,
    ) -> Option<Sent<'r>> {
        let body = self.body.lend()?;
        let (wish, is_fallback) = (choice.wish(&self.plan), choice.wish.0);
        let body = wish.put_into(body, runner);
        let upload = body.progress();
        let attempt =
            Try::new(self.shared, choice.reservation, &self.id, wish.requirements, is_fallback, now);
        // The copy is what is kept: the head that came has room for what links add to it.
        let kept = self.head.clone();
        let mut request = http::Request::from_parts(std::mem::replace(&mut self.head, kept), body);
        let (link, extensions) = (runner.link(), request.extensions_mut());
        let abilities = link.abilities();
        if !self.terms.repeatable {
            extensions.insert(NotRepeatable);
        }
        if abilities.claims {
            extensions.insert(self.claim.clone());
        }
        let answering = if !abilities.upgrades && extensions.get::<UpgradeTo>().is_some() {
            Err(LinkError::unsupported("connections that change to another protocol"))
        } else {
            Ok(link.send(request))
        };
        let Terms { repeatable, verbatim, .. } = self.terms;
        let first_byte = self.deadlines.first_byte;
        let conditions = Conditions { first_byte, total: self.total, repeatable, verbatim };
        Some(Sent { runner, answering, answer: Answer::to(attempt, upload), conditions })
    }

    /// Keeps what went wrong.
    pub(super) fn note(&mut self, done: Result<Box<Answer>, Failed>) -> Option<Box<Answer>> {
        done.map_err(|failed| self.failed(failed)).ok()
    }

    pub(super) fn failed(&mut self, failed: Failed) {
        tracing::debug!(
            request_id = %self.id, runner = %failed.runner.key(), failure = failed.as_str(), "try failed"
        );
        self.tried.push(failed.tried());
        self.failures += u32::from(failed.counts());
        self.overloaded += u32::from(failed.is_overloaded());
        self.last = Some(failed);
    }

    /// Another runner began first.
    pub(super) fn overtaken(&mut self, runner: &RunnerKey) {
        self.tried.push(Tried { runner: runner.clone(), sent: true });
    }

    /// Whether the request may go to yet another runner, after the pause that is due.
    async fn may_try_again(&mut self) -> bool {
        let policy = &self.shared.retry;
        let Some(last) = &self.last else { return false };
        if last.is_final()
            || self.failures >= policy.max_failures.max(1)
            || self.overloaded >= RetryPolicy::MAX_OVERLOADED
            || self.tried.len() >= RetryPolicy::MAX_TRIES
            || !self.body.can_lend()
            || !(self.terms.repeatable || last.did_nothing())
        {
            return false;
        }
        // A try that was never sent, or turned away at once, was no work for anybody.
        if !last.counts() {
            return true;
        }
        // The first move to another runner is at once: that one did nothing wrong.
        if let Some(retry) = self.failures.checked_sub(2) {
            let until = Instant::now() + policy.backoff.pause(retry);
            if self.total.is_some_and(|total| total <= until) {
                return false;
            }
            sleep_until(until).await;
        }
        // Paid for only if there is somebody to be paid: what one request cannot use is for the others.
        if !self.shared.chooser.is_anybody_left(&self.plan, &self.tried) {
            return false;
        }
        let is_paid = self.shared.budgets.pay_for_retry(Instant::now());
        if !is_paid {
            tracing::debug!(request_id = %self.id, "no retry: the budget is spent");
        }
        is_paid
    }

    fn dispatched(&mut self, mut answer: Box<Answer>) -> Dispatched {
        let shared = self.shared;
        let head = answer.head.take().unwrap_or_else(|| http::Response::new(()).into_parts().0);
        let attempt = &answer.attempt;
        let runner = attempt.runner().clone();
        let (sent, model) = (attempt.sent, attempt.model().cloned());
        let (reason, is_fallback) = (attempt.reason(), attempt.is_fallback());
        let first_byte = attempt.first_byte().unwrap_or_else(Instant::now);
        // An answer that is passed on although it is a failure stands among the tries already.
        let before = self.tried.iter().filter(|tried| tried.runner != *runner.key()).count();
        let limits = (self.deadlines.idle, self.total.filter(|_| !is_upgraded(&head)));
        let body = answer.into_body(limits, (std::mem::take(&mut self.permit), self.in_flight.take()));
        Dispatched {
            response: http::Response::from_parts(head, body),
            runner,
            model,
            tries: u32::try_from(before + 1).unwrap_or(u32::MAX),
            strategy: shared.chooser.balancer.name(),
            reason,
            is_fallback,
            hedged: self.hedged,
            waited: self.waited,
            sent,
            first_byte,
        }
    }

    fn give_up(&mut self, not_found: Option<NotFound>) -> Result<Dispatched, DispatchError> {
        let Some(Failed { failure, runner }) = self.last.take() else {
            return Err(self.nobody(not_found));
        };
        let model = self.plan.named().model.as_ref();
        let fail = |kind| DispatchError::new(kind, &self.id, model).on(runner.id()).after(self.tried.len());
        Err(match failure {
            Failure::Answer(answer) => return Ok(self.dispatched(answer)),
            Failure::NotSent(error) => fail(DispatchErrorKind::Unreachable)
                .because(Some(error))
                .retrying_after(Duration::from_secs(1)),
            Failure::Fault(fault, error) => fail(DispatchErrorKind::RunnerFailed(fault)).because(error),
            Failure::Total => fail(DispatchErrorKind::Deadline),
            Failure::RequestBody(error) => fail(DispatchErrorKind::RequestBody).because(Some(error)),
            Failure::Unsupported(error) => fail(DispatchErrorKind::Unsupported).because(Some(error)),
        })
    }
}
