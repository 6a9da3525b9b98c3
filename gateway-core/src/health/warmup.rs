use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::ms;

/// How a runner that comes back gets its share of the work again: slowly, so that cold caches, graphs that
/// are compiled on first use, and whatever made it fail, meet few requests at first.
///
/// The share of requests for which it is considered rises from [`from`](WarmupPolicy::from) to 1. It is
/// Envoy's slow start, `max(min_weight_percent, time_factor^(1 / aggression))`, with an aggression of 1:
/// linear. When nobody else can serve a request, a runner that warms up does.
///
/// A runner comes back when its breaker closes, and when it registers under an id that left a short while
/// ago. The first runners of a fleet do not come back: they are simply there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WarmupPolicy {
    /// How long it takes; zero: no slow start.
    pub over: Duration,
    /// The share at the beginning, 0 to 1.
    pub from: f64,
}

impl WarmupPolicy {
    /// All of the defaults.
    pub const DEFAULT: Self = Self { over: Self::OVER, from: Self::FROM };
    /// 30 s: some tens of requests, enough for an engine to have met the usual shapes.
    pub const OVER: Duration = Duration::from_secs(30);
    /// A tenth: Envoy's `min_weight_percent`. Less, and a fleet with few requests never gets to know.
    pub const FROM: f64 = 0.1;

    /// The share of requests for which it is considered, so long after it came back.
    pub fn share(&self, elapsed: Duration) -> f64 {
        if elapsed >= self.over {
            return 1.0;
        }
        (elapsed.as_secs_f64() / self.over.as_secs_f64()).max(self.from.clamp(0.0, 1.0))
    }
}

impl Default for WarmupPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Since when one registration is back. Times are ms on its clock.
#[derive(Debug, Default)]
pub(super) struct Warmup {
    /// One more than the time; 0: not warming up.
    since: AtomicU64,
}

impl Warmup {
    pub(super) fn start(&self, now: u64) {
        self.since.store(now.saturating_add(1), Ordering::Release);
    }

    /// Its share, or `None` if that is all.
    pub(super) fn share(&self, now: u64, policy: &WarmupPolicy) -> Option<f64> {
        let since = self.since.load(Ordering::Acquire).checked_sub(1)?;
        let elapsed = now.saturating_sub(since);
        (elapsed < ms(policy.over)).then(|| policy.share(Duration::from_millis(elapsed)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rises_in_a_line_from_a_tenth() {
        let policy = WarmupPolicy::default();
        let at = |secs| policy.share(Duration::from_secs(secs));
        assert_eq!([at(0), at(3), at(15), at(30), at(99)], [0.1, 0.1, 0.5, 1.0, 1.0]);
        assert_eq!(WarmupPolicy { over: Duration::ZERO, ..policy }.share(Duration::ZERO), 1.0);
    }

    #[test]
    fn only_who_came_back_warms_up() {
        let (warmup, policy) = (Warmup::default(), WarmupPolicy::default());
        assert_eq!(warmup.share(0, &policy), None);
        warmup.start(0);
        assert_eq!(warmup.share(15_000, &policy), Some(0.5));
        assert_eq!(warmup.share(30_000, &policy), None);
        warmup.start(60_000);
        assert_eq!(warmup.share(60_000, &policy), Some(0.1));
        assert_eq!(warmup.share(60_000, &WarmupPolicy { over: Duration::ZERO, ..policy }), None);
    }

    proptest! {
        #[test]
        fn never_falls(over in 0u64..100_000, from in -1.0..2.0, a in 0u64..100_000, more in 0u64..100_000) {
            let policy = WarmupPolicy { over: Duration::from_millis(over), from };
            let (early, late) = (Duration::from_millis(a), Duration::from_millis(a + more));
            prop_assert!(policy.share(early) <= policy.share(late));
            prop_assert!((0.0..=1.0).contains(&policy.share(early)));
        }
    }
}
