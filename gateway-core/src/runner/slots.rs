//! The counter of slots: the one place where a slot is taken and given back.

// From the parent, so that a test can check every interleaving with loom's types.
use super::sync::{AtomicU32, Ordering};

#[derive(Debug)]
pub(crate) struct Slots {
    taken: AtomicU32,
}

impl Slots {
    pub(crate) fn new() -> Self {
        Self { taken: AtomicU32::new(0) }
    }

    /// Takes one if fewer than `limit` are taken.
    #[inline]
    pub(crate) fn take(&self, limit: u32) -> bool {
        let next = |now: u32| (now < limit).then(|| now + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::Relaxed, next).is_ok()
    }

    /// Gives one back. Whether it was the last.
    #[inline]
    pub(crate) fn give_back(&self) -> bool {
        // Sequentially consistent with the bell's count of waiters: one of the two sides sees the other.
        let before = self.taken.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "a reservation was given back twice");
        before == 1
    }

    #[inline]
    pub(crate) fn taken(&self) -> u32 {
        self.taken.load(Ordering::Acquire)
    }
}
