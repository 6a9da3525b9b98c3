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

    pub(crate) fn end(&self) {
        self.touch();
        self.latch.end();
    }

    /// Counts as used at this moment.
    pub(crate) fn touch(&self) {
        let at = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_used.store(at, Ordering::Relaxed);
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
