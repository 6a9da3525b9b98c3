//! One at a time does the work, and nobody waits for the turn: who finds the baton taken leaves word, and
//! whoever has it does the work once more.
//!
//! That is what a `Drop` needs which hands its slot on: it may run while another thread hands out slots, or
//! inside the very code that does so.

// From the parent, so that a test can check every interleaving with loom's types.
use super::sync::{AtomicU8, Ordering};

const FREE: u8 = 0;
const TAKEN: u8 = 1;
/// Taken, and somebody rang since the work last began.
const RUNG: u8 = 2;

#[derive(Debug)]
pub(super) struct Baton {
    state: AtomicU8,
}

/// What became of a [`Baton::ring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rung {
    /// The work was done, and nobody rang since it last began.
    Done,
    /// Whoever has the baton does the work, after this moment.
    ByAnother,
    /// The turns are used up, but there was a ring since the work last began: somebody has to ring again.
    Unfinished,
}

impl Baton {
    pub(super) fn new() -> Self {
        Self { state: AtomicU8::new(FREE) }
    }

    /// Sees to it that the work is done after this moment, with everything that the caller did before being
    /// visible to it. It is done by the caller, at most `turns` times, or by whoever is at it.
    pub(super) fn ring(&self, turns: usize, mut work: impl FnMut()) -> Rung {
        let next = |state| Some(if state == FREE { TAKEN } else { RUNG });
        let before = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        if before != Ok(FREE) {
            return Rung::ByAnother;
        }
        let taken = Taken(self);
        for _ in 0..turns {
            self.state.swap(TAKEN, Ordering::AcqRel);
            work();
            // Fails if somebody rang meanwhile.
            if self.state.compare_exchange(TAKEN, FREE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                std::mem::forget(taken);
                return Rung::Done;
            }
        }
        Rung::Unfinished
    }
}

/// Frees the baton, also when the work panics.
struct Taken<'a>(&'a Baton);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.state.swap(FREE, Ordering::AcqRel);
    }
}
