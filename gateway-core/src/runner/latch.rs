//! Who is inside, and whether the door is open: one word, so that nobody slips in while it is being closed.

// From the parent, so that a test can check every interleaving with loom's types.
use super::sync::{AtomicU32, Ordering};

/// Set while nobody may begin.
const CLOSED: u32 = 1 << 31;

/// Counts who uses a model, and can be closed while nobody does.
///
/// Count and flag are one word. Closing is a compare-and-swap from "nobody, open", so it fails if anybody has
/// begun; whoever begins adds to the same word and sees the flag if closing came first. One of the two always
/// comes first, whatever snapshot of the fleet the one who begins has picked from.
#[derive(Debug)]
pub(crate) struct Latch {
    word: AtomicU32,
}

impl Latch {
    pub(crate) fn new() -> Self {
        Self { word: AtomicU32::new(0) }
    }

    /// Counts one more; `false`, and nothing is counted, while it is closed.
    #[inline]
    pub(crate) fn begin(&self) -> bool {
        let begun = self.word.fetch_add(1, Ordering::SeqCst) & CLOSED == 0;
        if !begun {
            self.end();
        }
        begun
    }

    #[inline]
    pub(crate) fn end(&self) {
        self.word.fetch_sub(1, Ordering::SeqCst);
    }

    /// Lets nobody begin any more, if nobody has. A refused beginner may be in the count for a moment; then
    /// it was closed already.
    pub(crate) fn close(&self) -> bool {
        self.word.compare_exchange(0, CLOSED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Lets nobody begin any more, whoever is inside.
    pub(crate) fn shut(&self) {
        self.word.fetch_or(CLOSED, Ordering::SeqCst);
    }

    pub(crate) fn open(&self) {
        self.word.fetch_and(!CLOSED, Ordering::SeqCst);
    }

    pub(crate) fn count(&self) -> u32 {
        self.word.load(Ordering::SeqCst) & !CLOSED
    }
}
