//! Who uses a model on a runner, and when it was used last: what an eviction must know.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Shared by all snapshots of one registration.
#[derive(Debug)]
pub(crate) struct Usage {
    in_flight: AtomicU32,
    /// In ms since `born`.
    last_used: AtomicU64,
    born: Instant,
}

impl Usage {
    pub(crate) fn new() -> Self {
        Self { in_flight: AtomicU32::new(0), last_used: AtomicU64::new(0), born: Instant::now() }
    }

    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn end(&self) {
        let at = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_used.store(at, Ordering::Relaxed);
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// When it was used last; at first, when it was seen first.
    pub(crate) fn last_used(&self) -> Instant {
        self.born + Duration::from_millis(self.last_used.load(Ordering::Relaxed))
    }
}
