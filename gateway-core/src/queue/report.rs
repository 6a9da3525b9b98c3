//! What is to be seen of the queue.

use std::fmt;
use std::time::Duration;

use super::{Priority, QueueErrorKind, Tenant};
use crate::names::ModelId;

/// How a waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WaitEnd {
    /// With a slot.
    Served,
    /// Before it began: the queue, or the tenant's share of it, was full.
    Refused,
    /// Its patience, or the time for the whole request, was up.
    TimedOut,
    /// No runner was left that could serve it.
    NotEligible,
    /// The client went away.
    Cancelled,
}

impl WaitEnd {
    /// Every end, for whoever prepares a counter for each.
    pub const ALL: [Self; 5] =
        [Self::Served, Self::Refused, Self::TimedOut, Self::NotEligible, Self::Cancelled];

    /// The word for it in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::NotEligible => "not_eligible",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for WaitEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<QueueErrorKind> for WaitEnd {
    fn from(kind: QueueErrorKind) -> Self {
        match kind {
            QueueErrorKind::Full | QueueErrorKind::TenantFull => Self::Refused,
            QueueErrorKind::TimedOut => Self::TimedOut,
            QueueErrorKind::NotEligible => Self::NotEligible,
        }
    }
}

/// One request that waited, or wanted to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Waited<'a> {
    /// For which model.
    pub model: Option<&'a ModelId>,
    /// On whose account.
    pub tenant: Option<&'a Tenant>,
    /// The class that it came with.
    pub priority: Priority,
    /// How long.
    pub waited: Duration,
    /// How it ended.
    pub end: WaitEnd,
}

/// The queue at one moment, for admins: it names models.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct QueueReport {
    /// How many wait.
    pub waiting: usize,
    /// How many may.
    pub max_waiting: usize,
    /// How many wait of each class that they came with, in the order of [`Priority::ALL`].
    pub by_priority: [usize; 3],
    /// The models that are waited for, the longest lines first; at most [`QueueReport::MAX_LANES`].
    pub lanes: Vec<LaneReport>,
    /// How many more models are waited for.
    pub more_lanes: usize,
}

impl QueueReport {
    /// Most models that are listed.
    pub const MAX_LANES: usize = 64;
}

/// Those who wait for one model.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LaneReport {
    /// The model; `None` for requests that name none.
    pub model: Option<ModelId>,
    /// How many wait.
    pub waiting: usize,
    /// How long the one has waited that came first.
    pub oldest: Duration,
    /// Slots handed out per second lately; `None` if there was none yet.
    pub slots_per_s: Option<f64>,
}
