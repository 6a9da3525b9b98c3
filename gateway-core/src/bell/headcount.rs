//! How many wait, such that whoever frees a slot and whoever begins to wait cannot miss each other.

// From the parent, so that a test can check every interleaving with loom's types.
use super::sync::{AtomicUsize, Ordering, fence};

#[derive(Debug)]
pub(crate) struct Headcount {
    count: AtomicUsize,
}

impl Headcount {
    pub(crate) fn new() -> Self {
        Self { count: AtomicUsize::new(0) }
    }

    /// Counts one more, before that one looks for a free slot.
    pub(crate) fn enter(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        // Orders the count before whatever the caller reads of slots next; `is_anybody` does the reverse.
        fence(Ordering::SeqCst);
    }

    pub(crate) fn leave(&self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether anybody is counted, after the caller freed a slot. If not, then whoever enters finds it.
    #[inline]
    pub(crate) fn is_anybody(&self) -> bool {
        fence(Ordering::SeqCst);
        self.get() > 0
    }

    #[inline]
    pub(crate) fn get(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}
