//! Who uses a model on a runner, and when it was used last: what an eviction must know.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::latch::Latch;

/// Shared by all snapshots of one registration.
#[derive(Debug)]
pub(crate) struct Usage {
    latch: Latch,
    /// In ms since `born`.
    last_used: AtomicU64,
    born: Instant,
}

impl Usage {
    pub(crate) fn new() -> Self {
        Self { latch: Latch::new(), last_used: AtomicU64::new(0), born: Instant::now() }
    }

    /// Counts as used at this moment. Told by those who have read the clock, beside [`Usage::end`]: a pick that is
    /// given back unused is no use, and reading the clock would be a fifth of what it costs.
    pub(crate) fn touch(&self, now: Instant) {
        let at = now.saturating_duration_since(self.born).as_millis();
        self.last_used.store(u64::try_from(at).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.latch.end();
    }

    pub(crate) fn latch(&self) -> &Latch {
        &self.latch
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.latch.count()
    }

    /// When it was used last, or came into memory; at first, when it was seen first.
    pub(crate) fn last_used(&self) -> Instant {
        self.born + Duration::from_millis(self.last_used.load(Ordering::Relaxed))
    }
}
