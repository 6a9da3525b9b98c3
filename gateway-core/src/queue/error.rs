use std::time::Duration;

use super::order::Full;

/// Why a request that waited, or wanted to, got no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind}; try again in {} s", retry_after.as_secs())]
pub struct QueueError {
    pub(super) kind: QueueErrorKind,
    pub(super) retry_after: Duration,
    pub(super) waited: Duration,
}

/// The kinds of [`QueueError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum QueueErrorKind {
    /// As many wait as may wait: too many requests (HTTP 429).
    #[error("too many requests wait for a free runner")]
    Full,
    /// As many of this tenant wait as may: too many requests (HTTP 429).
    #[error("too many requests of this tenant wait for a free runner")]
    TenantFull,
    /// No slot was free in time (HTTP 503).
    #[error("no runner became free in time")]
    TimedOut,
    /// The last runner that could have served it has gone (HTTP 503).
    #[error("no runner is left that could serve the request")]
    NotEligible,
}

impl QueueError {
    /// What kind it is.
    pub fn kind(&self) -> QueueErrorKind {
        self.kind
    }

    /// When another attempt makes sense: when as many slots will have been handed out as requests wait now,
    /// by the pace of the last ones. Whole seconds, 1 to 60.
    pub fn retry_after(&self) -> Duration {
        self.retry_after
    }

    /// How long it waited.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl From<Full> for QueueErrorKind {
    fn from(full: Full) -> Self {
        match full {
            Full::Queue => Self::Full,
            Full::Tenant => Self::TenantFull,
        }
    }
}
