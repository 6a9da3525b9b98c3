//! What has been asked of this server, for whoever asks how it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts requests of StreamPredict since the start.
#[derive(Debug, Default)]
pub(super) struct Tally {
    under_way: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

/// One request; under way as long as it lives. One that is dropped before it ended was cancelled, which is
/// neither a success nor a failure.
#[derive(Debug)]
pub(super) struct Counted(Arc<Tally>);

impl Tally {
    pub(super) fn begin(self: &Arc<Self>) -> Counted {
        self.under_way.fetch_add(1, Relaxed);
        Counted(self.clone())
    }

    pub(super) fn under_way(&self) -> u64 {
        self.under_way.load(Relaxed)
    }

    pub(super) fn succeeded(&self) -> u64 {
        self.succeeded.load(Relaxed)
    }

    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }
}

impl Counted {
    pub(super) fn succeeded(&self) {
        self.0.succeeded.fetch_add(1, Relaxed);
    }

    pub(super) fn failed(&self) {
        self.0.failed.fetch_add(1, Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}
