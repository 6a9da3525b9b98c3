use std::time::Duration;

/// How long to wait before a request is tried again: doubling from a shortest to a longest pause, with
/// jitter, so that requests which failed together do not come back together.
///
/// The pause before retry `n` (the first is 0) lies between `(1 - jitter) * p` and `p`, where `p` is
/// `shortest * 2^n`, at most `longest`. With a jitter of 1 this is the "full jitter" of Marc Brooker's
/// "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): of the kinds compared there, the one
/// with the least work done in all.
///
/// ```
/// use std::time::Duration;
/// use gateway_core::Backoff;
/// let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(40), 0.5)?;
/// assert_eq!(backoff.pause_at(0, 0.0), Duration::from_millis(5));
/// assert_eq!(backoff.pause_at(1, 1.0), Duration::from_millis(20));
/// assert!(backoff.pause(9) <= Duration::from_millis(40));
/// # Ok::<(), gateway_core::InvalidBackoff>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    jitter: f64,
}

/// Why a [`Backoff`] makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidBackoff {
    /// The pauses are the wrong way round.
    #[error(
        "the shortest pause, {shortest:?}, is longer than the longest, {longest:?}: make it at most as long"
    )]
    Order {
        /// As given.
        shortest: Duration,
        /// As given.
        longest: Duration,
    },
    /// The jitter is no share.
    #[error("the jitter is {0}: give a share from 0 to 1")]
    Jitter(f64),
}

impl Backoff {
    /// 25 ms, as in Envoy's `retry_back_off.base_interval`: longer than a hiccup of the network, shorter than
    /// anybody notices beside a prefill.
    pub const SHORTEST: Duration = Duration::from_millis(25);
    /// One second: a client that waits for a first token should not wait much longer for a try.
    pub const LONGEST: Duration = Duration::from_secs(1);
    /// Full jitter.
    pub const JITTER: f64 = 1.0;

    /// Pauses from `shortest` to `longest`, of which the share `jitter` (0 to 1) is random.
    pub fn new(shortest: Duration, longest: Duration, jitter: f64) -> Result<Self, InvalidBackoff> {
        if shortest > longest {
            return Err(InvalidBackoff::Order { shortest, longest });
        }
        if !(0.0..=1.0).contains(&jitter) {
            return Err(InvalidBackoff::Jitter(jitter));
        }
        Ok(Self { shortest, longest, jitter })
    }

    /// No pause at all.
    pub const fn none() -> Self {
        Self { shortest: Duration::ZERO, longest: Duration::ZERO, jitter: 0.0 }
    }

    /// The first pause at its longest.
    pub fn shortest(&self) -> Duration {
        self.shortest
    }

    /// What no pause is longer than.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// The share of a pause that is random, 0 to 1.
    pub fn jitter(&self) -> f64 {
        self.jitter
    }

    /// The pause before retry number `retry`; the first is 0. Random, from the thread's generator of
    /// `fastrand`, which a simulation seeds.
    pub fn pause(&self, retry: u32) -> Duration {
        self.pause_at(retry, fastrand::f64())
    }

    /// As [`pause`](Backoff::pause), with the random number given: 0 is the shortest, 1 the longest of what
    /// it may be.
    pub fn pause_at(&self, retry: u32, chance: f64) -> Duration {
        let doubled = 2u32.checked_pow(retry).and_then(|times| self.shortest.checked_mul(times));
        let longest = doubled.unwrap_or(Duration::MAX).min(self.longest);
        longest.mul_f64(1.0 - self.jitter * (1.0 - chance.clamp(0.0, 1.0))).min(longest)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { shortest: Self::SHORTEST, longest: Self::LONGEST, jitter: Self::JITTER }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn nonsense_is_refused() {
        assert!(matches!(Backoff::new(MS * 2, MS, 0.5), Err(InvalidBackoff::Order { .. })));
        for jitter in [-0.1, 1.1, f64::NAN] {
            assert!(matches!(Backoff::new(MS, MS, jitter), Err(InvalidBackoff::Jitter(_))));
        }
    }

    #[test]
    fn doubles_up_to_the_longest() {
        let backoff = Backoff::new(MS * 25, MS * 1000, 0.0).unwrap();
        let pauses: Vec<_> = (0..8).map(|retry| backoff.pause(retry).as_millis()).collect();
        assert_eq!(pauses, [25, 50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(Backoff::none().pause(3), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn stays_within_its_bounds(
            shortest in 0u64..100_000, more in 0u64..100_000, jitter in 0.0..=1.0, retry: u32, seed: u64,
        ) {
            let (shortest, longest) = (MS * shortest as u32, MS * (shortest + more) as u32);
            let backoff = Backoff::new(shortest, longest, jitter).unwrap();
            let chance = fastrand::Rng::with_seed(seed).f64();
            let pause = backoff.pause_at(retry, chance);
            prop_assert!(pause <= longest);
            // A nanosecond for rounding.
            prop_assert!(pause + Duration::from_nanos(1) >= shortest.mul_f64(1.0 - jitter));
            prop_assert_eq!(pause, backoff.pause_at(retry, chance), "the same number gives the same pause");
            let full = backoff.pause_at(retry, 1.0);
            prop_assert!(pause <= full && full <= backoff.pause_at(retry.saturating_add(1), 1.0));
        }
    }
}
