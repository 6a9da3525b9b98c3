use std::time::Duration;

use tokio::time::Instant;

use crate::window::Window;

/// How many tries beyond the first a gateway allows itself.
///
/// The defaults are those of Finagle's `RetryBudget` (release 6.31, "Retry Budgets", 2016), which linkerd
/// took over: a fifth of the requests, ten a second besides, credits that last ten seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetPolicy {
    /// Retries per request. 0.2: a fleet in trouble gets at most a fifth more to do.
    pub ratio: f64,
    /// Retries a second that are allowed without any request to pay for them, so that a gateway with little
    /// to do may try again too.
    pub min_per_second: f64,
    /// For how long a request counts. What `min_per_second` allows in that time may be used at once. At least
    /// 10 ms.
    pub window: Duration,
}

impl BudgetPolicy {
    /// A fifth.
    pub const RATIO: f64 = 0.2;
    /// Ten a second.
    pub const MIN_PER_SECOND: f64 = 10.0;
    /// Ten seconds.
    pub const WINDOW: Duration = Duration::from_secs(10);
}

impl Default for BudgetPolicy {
    fn default() -> Self {
        Self { ratio: Self::RATIO, min_per_second: Self::MIN_PER_SECOND, window: Self::WINDOW }
    }
}

/// The retries that all requests share. Within any window there are never more than
/// `ratio * requests + min_per_second * window` of them, whoever asks at the same moment.
///
/// A fixed amount of memory, no lock, no task: old credits are overwritten as time goes on.
///
/// ```
/// use gateway_core::{BudgetPolicy, RetryBudget};
/// use tokio::time::Instant;
/// let now = Instant::now();
/// let budget = RetryBudget::new(BudgetPolicy { min_per_second: 0.0, ..BudgetPolicy::default() }, now);
/// (0..5).for_each(|_| budget.deposit(now));
/// assert!(budget.withdraw(now));
/// assert!(!budget.withdraw(now), "five requests pay for one retry");
/// ```
#[derive(Debug)]
pub struct RetryBudget {
    /// Requests and retries.
    window: Window,
    length: u64,
    /// What is there without any request.
    reserve: f64,
    ratio: f64,
    born: Instant,
}

impl RetryBudget {
    /// A budget that begins now. Figures below zero, or that are no numbers, count as zero.
    pub fn new(policy: BudgetPolicy, now: Instant) -> Self {
        let length = u64::try_from(policy.window.as_millis()).unwrap_or(u64::MAX).max(10);
        // `max` drops what is no number.
        let reserve = policy.min_per_second.max(0.0) * (length as f64 / 1000.0);
        Self { window: Window::new(), length, reserve, ratio: policy.ratio.max(0.0), born: now }
    }

    /// A request has come: call it once for each, not for its retries.
    pub fn deposit(&self, now: Instant) {
        self.window.add(self.at(now), self.length, 1, 0);
    }

    /// Pays for one retry. `false` if the budget is spent: then the request is not tried again.
    pub fn withdraw(&self, now: Instant) -> bool {
        let at = self.at(now);
        // Counted first and looked at then, so that of many who ask at once none counts on what another
        // has taken.
        self.window.add(at, self.length, 0, 1);
        let paid = self.left(at) >= 0.0;
        if !paid {
            self.window.take_back_some(at, self.length);
        }
        paid
    }

    /// How many retries are left now.
    pub fn balance(&self, now: Instant) -> f64 {
        self.left(self.at(now)).max(0.0)
    }

    fn left(&self, at: u64) -> f64 {
        let counted = self.window.sum(at, self.length);
        // So that a fifth of five is one, however a fifth is written in binary.
        const ROUNDING: f64 = 1e-9;
        self.reserve + self.ratio * counted.all as f64 - counted.some as f64 + ROUNDING
    }

    fn at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use proptest::prelude::*;

    use super::*;

    fn budget(ratio: f64, min_per_second: f64) -> (RetryBudget, Instant) {
        let now = Instant::now();
        (RetryBudget::new(BudgetPolicy { ratio, min_per_second, ..BudgetPolicy::default() }, now), now)
    }

    #[test]
    fn the_reserve_is_there_without_requests_and_comes_back() {
        let (budget, start) = budget(0.2, 10.0);
        assert_eq!((0..500).filter(|_| budget.withdraw(start)).count(), 100);
        assert!(budget.balance(start) < 1.0);
        let later = start + BudgetPolicy::WINDOW;
        assert_eq!((0..500).filter(|_| budget.withdraw(later)).count(), 100);
    }

    #[test]
    fn requests_pay_until_they_are_old() {
        let (budget, start) = budget(0.2, 0.0);
        (0..50).for_each(|_| budget.deposit(start));
        let almost = start + BudgetPolicy::WINDOW - Duration::from_millis(1);
        assert!(budget.withdraw(almost));
        assert_eq!(budget.balance(almost).round(), 9.0);
        assert!(!budget.withdraw(start + BudgetPolicy::WINDOW));
    }

    #[test]
    fn nonsense_allows_nothing() {
        let (budget, now) = budget(f64::NAN, -1.0);
        budget.deposit(now);
        assert!(!budget.withdraw(now));
    }

    #[test]
    fn many_at_once_take_no_more_than_there_is() {
        let (budget, now) = budget(0.2, 1.0);
        let paid = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        paid.fetch_add(u32::from(budget.withdraw(now)), Ordering::Relaxed);
                    }
                });
            }
        });
        assert!(paid.load(Ordering::Relaxed) <= 10, "{paid:?}");
    }

    proptest! {
        #[test]
        fn never_more_than_the_share(
            steps in prop::collection::vec((0u64..1500, any::<bool>()), 1..300), ratio in 0.0..1.0, min in 0.0..3.0,
        ) {
            let (budget, mut now) = budget(ratio, min);
            let (mut requests, mut retries) = (0.0, 0.0);
            let start = now;
            for (ms, retry) in steps {
                now += Duration::from_millis(ms);
                if retry {
                    retries += f64::from(u8::from(budget.withdraw(now)));
                } else {
                    budget.deposit(now);
                    requests += 1.0;
                }
                // Over the whole run: one reserve for each window that has begun.
                let windows = ((now - start).as_secs_f64() / 9.0).floor() + 1.0;
                prop_assert!(retries <= ratio * requests + min * 10.0 * windows + 1e-6);
            }
        }
    }
}
