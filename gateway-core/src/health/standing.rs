use std::fmt;

use tokio::time::Instant;

use super::HeldFor;

/// What a runner's conduct has earned it at one moment, for people to read: explain, admin, logs.
///
/// ```
/// use gateway_core::Standing;
/// let standing = Standing::default();
/// assert!(standing.is_good());
/// assert_eq!(standing.to_string(), "good");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Standing {
    /// Its circuit breaker.
    pub breaker: BreakerState,
    /// Others are preferred until then, and why.
    pub held: Option<(Instant, HeldFor)>,
    /// Others are preferred until then, because it did much worse than they.
    pub ejected: Option<Instant>,
    /// It came back a short while ago and is considered for this share of the requests, above 0 and below 1.
    pub warming: Option<f64>,
}

/// What a circuit breaker lets through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything.
    #[default]
    Closed,
    /// Nothing.
    Open {
        /// From then on, probes.
        until: Instant,
        /// How often it has opened without having been closed for long in between.
        times: u8,
    },
    /// A counted number of requests at once.
    HalfOpen {
        /// Probes under way that have not shown yet how they end.
        probing: u8,
        /// The most there may be.
        places: u8,
        /// Probes that passed.
        passed: u8,
    },
}

impl BreakerState {
    /// The word for it in logs, metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen { .. } => "half_open",
        }
    }
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Standing {
    /// Whether nothing speaks against the runner.
    pub fn is_good(&self) -> bool {
        *self == Self::default()
    }

    /// One word, for what matters most.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self { breaker: BreakerState::Open { .. }, .. } => "open",
            Self { held: Some((_, HeldFor::Unreachable)), .. } => "unreachable",
            Self { ejected: Some(_), .. } => "ejected",
            Self { breaker: BreakerState::HalfOpen { .. }, .. } => "half_open",
            Self { held: Some((_, HeldFor::RetryAfter)), .. } => "asked_to_wait",
            Self { warming: Some(_), .. } => "warming",
            _ => "good",
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
