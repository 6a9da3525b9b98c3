//! How long to wait before dialling again.

use std::time::Duration;

/// Bounds of the wait between two tries to connect.
///
/// The wait before try `n` is drawn at random between zero and `min × 2ⁿ`, at most `max`: "full jitter"
/// of the AWS Architecture Blog, "Exponential Backoff And Jitter". Runners that lost the same gateway at the
/// same moment so come back spread out. After a refusal that only people can mend, such as a wrong token,
/// the wait is at least half of `max` ("equal jitter" of the same article).
///
/// ```
/// use std::time::Duration;
/// use gateway_dial_in::agent::Backoff;
/// let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5))?;
/// assert_eq!(backoff.max(), Duration::from_secs(5));
/// assert!(Backoff::new(Duration::ZERO, Duration::from_secs(5)).is_err());
/// # Ok::<(), gateway_dial_in::agent::InvalidBackoff>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
}

/// Why a pair of bounds was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidBackoff {
    /// Tries would follow each other without a pause.
    #[error("the shortest wait is zero; give at least a millisecond")]
    NoMin,
    /// The bounds are the wrong way round.
    #[error("the longest wait ({max:?}) is below the shortest ({min:?}); swap them")]
    MaxBelowMin {
        /// The shortest wait that was given.
        min: Duration,
        /// The longest wait that was given.
        max: Duration,
    },
    /// A runner that waits for longer than [`Backoff::LONGEST`] looks dead to people.
    #[error("the longest wait ({0:?}) is above one hour; give less")]
    MaxTooLong(Duration),
}

impl Backoff {
    /// Default bound of the first wait: 500 ms.
    pub const MIN: Duration = Duration::from_millis(500);
    /// Default bound of every wait: 30 s, one heartbeat.
    pub const MAX: Duration = Duration::from_secs(30);
    /// The longest bound that is accepted: one hour.
    pub const LONGEST: Duration = Duration::from_secs(3600);

    /// Checks the bounds: `min` at least 1 ms, `max` from `min` to [`Backoff::LONGEST`].
    pub fn new(min: Duration, max: Duration) -> Result<Self, InvalidBackoff> {
        if min < Duration::from_millis(1) {
            return Err(InvalidBackoff::NoMin);
        }
        if max < min {
            return Err(InvalidBackoff::MaxBelowMin { min, max });
        }
        if max > Self::LONGEST {
            return Err(InvalidBackoff::MaxTooLong(max));
        }
        Ok(Self { min, max })
    }

    /// Bound of the first wait.
    pub fn min(&self) -> Duration {
        self.min
    }

    /// Bound of every wait.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// Bound of the wait after `failures` tries in a row that came to nothing.
    fn ceiling(&self, failures: u32) -> Duration {
        let factor = 2u32.checked_pow(failures).unwrap_or(u32::MAX);
        self.min.saturating_mul(factor).min(self.max)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { min: Self::MIN, max: Self::MAX }
    }
}

/// The waits of one gateway, one after the other.
#[derive(Debug)]
pub(super) struct Waits {
    backoff: Backoff,
    failures: u32,
}

impl Waits {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { backoff, failures: 0 }
    }

    /// The wait after one more try that came to nothing.
    pub(super) fn next(&mut self) -> Duration {
        let ceiling = self.backoff.ceiling(self.failures);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(fastrand::f64())
    }

    /// The wait after a refusal that does not go away by itself.
    pub(super) fn next_after_refusal(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.backoff.max.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// A connection stood: the next wait is a first one again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_wait_is_under_its_ceiling_and_ceilings_never_fall(
            min in 1u64..10_000,
            more in 0u64..3_000_000,
            tries in 1u32..80,
        ) {
            let min = Duration::from_millis(min);
            let backoff = Backoff::new(min, min + Duration::from_millis(more)).unwrap();
            let mut waits = Waits::new(backoff);
            let mut last = Duration::ZERO;
            for n in 0..tries {
                let ceiling = backoff.ceiling(n);
                prop_assert!(last <= ceiling && ceiling <= backoff.max());
                prop_assert!(waits.next() <= ceiling);
                last = ceiling;
            }
            prop_assert!(waits.next_after_refusal() >= backoff.max() / 2);
            prop_assert!(waits.next_after_refusal() <= backoff.max());
            waits.reset();
            prop_assert!(waits.next() <= min);
        }
    }

    #[test]
    fn ceilings_double_up_to_the_bound() {
        let backoff = Backoff::default();
        let seconds: Vec<f64> = (0..8).map(|n| backoff.ceiling(n).as_secs_f64()).collect();
        assert_eq!(seconds, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
    }

    #[test]
    fn waits_are_spread_over_the_whole_range() {
        let mut low = 0;
        let mut high = 0;
        for _ in 0..1000 {
            let wait = Waits::new(Backoff::default()).next();
            low += u32::from(wait < Backoff::MIN / 4);
            high += u32::from(wait > Backoff::MIN / 4 * 3);
        }
        assert!(low > 150 && high > 150, "{low} low and {high} high of 1000");
    }

    #[test]
    fn bounds_are_checked() {
        let second = Duration::from_secs(1);
        assert_eq!(Backoff::new(Duration::ZERO, second), Err(InvalidBackoff::NoMin));
        assert!(matches!(Backoff::new(second * 2, second), Err(InvalidBackoff::MaxBelowMin { .. })));
        assert!(matches!(Backoff::new(second, second * 3601), Err(InvalidBackoff::MaxTooLong(_))));
    }
}
