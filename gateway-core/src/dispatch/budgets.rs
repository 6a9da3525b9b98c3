//! What retries and hedges are paid for from.

use tokio::time::Instant;

use super::hedge::HedgePolicy;
use super::limits::RetryPolicy;
use crate::retry::RetryBudget;

#[derive(Debug)]
pub(super) struct Budgets {
    retries: Option<RetryBudget>,
    hedges: Option<RetryBudget>,
}

impl Budgets {
    pub(super) fn new(retry: &RetryPolicy, hedge: Option<&HedgePolicy>) -> Self {
        let now = Instant::now();
        Self {
            retries: retry.budget.map(|policy| RetryBudget::new(policy, now)),
            hedges: hedge.map(|policy| RetryBudget::new(policy.budget(), now)),
        }
    }

    /// A request has come.
    pub(super) fn deposit(&self, now: Instant) {
        for budget in [&self.retries, &self.hedges].into_iter().flatten() {
            budget.deposit(now);
        }
    }

    pub(super) fn pay_for_retry(&self, now: Instant) -> bool {
        self.retries.as_ref().is_none_or(|budget| budget.withdraw(now))
    }

    pub(super) fn pay_for_hedge(&self, now: Instant) -> bool {
        self.hedges.as_ref().is_none_or(|budget| budget.withdraw(now))
    }
}
