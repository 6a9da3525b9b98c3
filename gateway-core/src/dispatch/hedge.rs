//! A second try beside one that has not begun to answer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::time::{Instant, timeout};

use super::body::Answer;
use super::run::Journey;
use crate::retry::BudgetPolicy;
use crate::runner::Runner;

/// When a request that has not begun to answer is sent to a second runner as well. Whoever begins first
/// serves; the other is cancelled. Off unless set: it buys the latency of the slowest requests with work that
/// is thrown away.
///
/// ```
/// use std::time::Duration;
/// use gateway_core::HedgePolicy;
/// let hedge = HedgePolicy::after(Duration::from_secs(2));
/// assert_eq!(hedge.ratio, HedgePolicy::RATIO);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HedgePolicy {
    /// How long the first runner is given to begin. The time that 95 % of requests need is a good start (Dean
    /// and Barroso, "The Tail at Scale", 2013).
    pub after: Duration,
    /// The most hedges per request, over ten seconds. They are paid for from a budget of their own.
    pub ratio: f64,
}

impl HedgePolicy {
    /// One in twenty: what a hedge at the 95th percentile needs, and no more, so that a fleet which slows
    /// down as a whole does not get twice the work.
    pub const RATIO: f64 = 0.05;

    /// Hedges after this time.
    pub fn after(after: Duration) -> Self {
        Self { after, ratio: Self::RATIO }
    }

    pub(super) fn budget(&self) -> BudgetPolicy {
        BudgetPolicy { ratio: self.ratio, min_per_second: 0.5, ..BudgetPolicy::default() }
    }
}

impl Journey<'_> {
    /// Sends to the runner that was chosen and, if it takes too long to begin and another is free, to that
    /// one, too. Only for requests that may be sent twice.
    pub(super) async fn send_hedged(
        &mut self,
        choice: super::choose::Choice,
        first_runner: &Arc<Runner>,
        policy: HedgePolicy,
    ) -> Option<Box<Answer>> {
        let second_runner;
        let first_sent = Instant::now();
        let mut first = Box::pin(self.send(choice, first_runner, first_sent)?.begun());
        if let Ok(done) = timeout(policy.after, &mut first).await {
            return self.note(done);
        }
        let second = match self.second_choice(first_runner) {
            Some(choice) => {
                second_runner = choice.reservation.runner().clone();
                self.send(choice, &second_runner, Instant::now())
            }
            None => None,
        };
        let Some(second) = second else {
            let done = first.await;
            return self.note(done);
        };
        self.hedged = true;
        let second_runner = second.runner;
        tracing::debug!(request_id = %self.id, runner = %second_runner.key(), "hedged");
        let second = Box::pin(second.begun());
        let (done, other, other_runner) = match select(first, second).await {
            Either::Left((done, second)) => (done, second, second_runner),
            Either::Right((done, first)) => {
                // Else a runner that hangs would never be found out: all that is sent to it is cancelled.
                if done.is_ok() {
                    first_runner.overtaken(first_sent.elapsed());
                }
                (done, first, first_runner)
            }
        };
        match done {
            Ok(answer) => {
                // Dropping the loser cancels it on its runner.
                drop(other);
                self.overtaken(other_runner.key());
                Some(answer)
            }
            Err(failed) => {
                self.failed(failed);
                let done = other.await;
                self.note(done)
            }
        }
    }

    fn second_choice(&self, first: &crate::runner::Runner) -> Option<super::choose::Choice> {
        // Who waits for a slot goes before who already has one.
        if self.is_anybody_waiting() {
            return None;
        }
        let now = Instant::now();
        let mut tried = self.tried.clone();
        tried.push(crate::balance::Tried { runner: first.key().clone(), sent: true });
        let choice = self.shared.chooser.choose(&self.plan, &tried, false, now)?;
        // Paid for only if there is somebody to be paid.
        self.shared.budgets.pay_for_hedge(now).then_some(choice)
    }
}
