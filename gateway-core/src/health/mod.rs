//! Whether a runner deserves requests: circuit breaker, holds, slow start, outlier ejection.
//!
//! Each is a small thing of its own, with the time passed in. [`Conduct`] puts together what they say of
//! one registration; [`Standing`] is what people read.

mod breaker;
mod conduct;
#[cfg(test)]
mod conduct_tests;
mod gate;
#[cfg(test)]
mod gate_tests;
mod hold;
mod outlier;
mod outliers;
mod standing;
mod sync;
mod warmup;

use std::time::Duration;

pub(crate) use breaker::Admitted;
pub use breaker::BreakerPolicy;
pub(crate) use conduct::{Change, Conduct, Reluctance};
pub(crate) use gate::Probe;
pub use hold::{HeldFor, HoldPolicy};
pub use outlier::OutlierPolicy;
pub(crate) use outliers::Outliers;
pub use standing::{BreakerState, Standing};
pub use warmup::WarmupPolicy;

/// What decides whether a runner deserves requests. `None` turns a part off.
///
/// ```
/// use gateway_core::HealthPolicy;
/// // Runners are known to be alike, and few: no outliers.
/// let policy = HealthPolicy { outliers: None, ..HealthPolicy::default() };
/// assert!(policy.breaker.is_some());
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HealthPolicy {
    /// When nothing more is sent to a runner that fails.
    pub breaker: Option<BreakerPolicy>,
    /// When others are preferred to one that cannot be reached, or asked for a pause.
    pub hold: Option<HoldPolicy>,
    /// How a runner that comes back gets its share again.
    pub warmup: Option<WarmupPolicy>,
    /// When others are preferred to one that does much worse than they.
    pub outliers: Option<OutlierPolicy>,
    /// Over how long shares of faults are counted, for breakers and outliers; at least 10 ms.
    pub window: Duration,
}

impl HealthPolicy {
    /// 30 s: long enough to see tens of requests of a runner with a few slots, short enough to forget.
    pub const WINDOW: Duration = Duration::from_secs(30);

    /// What is in force unless something else is said: every part, with its defaults.
    pub const DEFAULT: Self = Self {
        breaker: Some(BreakerPolicy::DEFAULT),
        hold: Some(HoldPolicy::DEFAULT),
        warmup: Some(WarmupPolicy::DEFAULT),
        outliers: Some(OutlierPolicy::DEFAULT),
        window: Self::WINDOW,
    };

    /// Every runner deserves requests, whatever it does.
    pub const fn off() -> Self {
        Self { breaker: None, hold: None, warmup: None, outliers: None, window: Self::WINDOW }
    }
}

impl Default for HealthPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Whole milliseconds, in which everything here counts.
fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
