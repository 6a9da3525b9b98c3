//! Who uses a model on a runner, and when it was used last: what an eviction must know.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::time::Instant;

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
pub(crate) struct Gate {
    word: AtomicU32,
}

impl Gate {
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

    pub(crate) fn open(&self) {
        self.word.fetch_and(!CLOSED, Ordering::SeqCst);
    }

    pub(crate) fn count(&self) -> u32 {
        self.word.load(Ordering::SeqCst) & !CLOSED
    }
}

/// Shared by all snapshots of one registration.
#[derive(Debug)]
pub(crate) struct Usage {
    gate: Gate,
    /// In ms since `born`.
    last_used: AtomicU64,
    born: Instant,
}

impl Usage {
    pub(crate) fn new() -> Self {
        Self { gate: Gate::new(), last_used: AtomicU64::new(0), born: Instant::now() }
    }

    pub(crate) fn end(&self) {
        self.touch();
        self.gate.end();
    }

    /// Counts as used at this moment.
    pub(crate) fn touch(&self) {
        let at = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_used.store(at, Ordering::Relaxed);
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.gate.count()
    }

    /// When it was used last, or came into memory; at first, when it was seen first.
    pub(crate) fn last_used(&self) -> Instant {
        self.born + Duration::from_millis(self.last_used.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn closes_only_while_nobody_uses_it() {
        let gate = Gate::new();
        assert!(gate.begin());
        assert!(!gate.close());
        gate.end();
        assert!(gate.close());
        assert!(!gate.close(), "it is closed already");
        assert!(!gate.begin());
        assert_eq!(gate.count(), 0);
        gate.open();
        assert!(gate.begin());
        assert_eq!(gate.count(), 1);
    }

    /// Many threads begin and end while one closes and opens: nobody is ever inside while it is closed.
    #[test]
    fn nobody_is_inside_while_it_is_closed() {
        let gate = Gate::new();
        let inside = AtomicU32::new(0);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        if gate.begin() {
                            inside.fetch_add(1, Ordering::SeqCst);
                            std::hint::spin_loop();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            gate.end();
                        }
                        std::thread::yield_now();
                    }
                });
            }
            let mut closed = 0;
            for _ in 0..2_000_000 {
                if gate.close() {
                    closed += 1;
                    for _ in 0..20 {
                        assert_eq!(inside.load(Ordering::SeqCst), 0);
                    }
                    gate.open();
                }
                if closed >= 2_000 {
                    break;
                }
            }
            over.store(true, Ordering::Relaxed);
            assert!(closed > 0, "it was never free");
        });
        assert_eq!(gate.count(), 0);
    }
}
