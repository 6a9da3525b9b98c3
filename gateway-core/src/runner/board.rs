//! The load of all runners of a registry, close together in memory.
//!
//! An exact choice must look at every runner. What it looks at is one word per runner: the share of its
//! slots in use as a number that sorts, with flags above it. Words lie in blocks, so ten thousand runners
//! are some 80 KB read in order instead of ten thousand pointers followed. A word moves by addition only, so
//! that two who change it at once cannot lose one another's change.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Words in a block: 4 KB.
pub(crate) const BLOCK: usize = 512;

/// One request on a runner with a single slot. A runner with more slots adds its share of this.
const WHOLE: u64 = 1 << 40;
/// Requests beyond this many are not told apart, so that no count reaches the flags.
const MOST: u32 = 1 << 16;

/// Takes nothing new at all.
pub(crate) const CLOSED: u64 = 1 << 63;
/// May have to be spared: whoever chooses looks closer.
pub(crate) const RELUCTANT: u64 = 1 << 62;

pub(crate) type Block = [AtomicU64; BLOCK];

/// Gives out seats. One per registry.
#[derive(Default)]
pub(crate) struct Board {
    state: Mutex<State>,
    /// How many words have the flag [`RELUCTANT`].
    reluctant: AtomicU32,
}

#[derive(Default)]
struct State {
    blocks: Vec<Arc<Block>>,
    free: Vec<u32>,
}

impl Board {
    pub(crate) fn seat(self: &Arc<Self>, slots: Option<NonZeroU32>) -> Seat {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.free.is_empty() {
            let from = state.blocks.len() * BLOCK;
            state.blocks.push(Arc::new(std::array::from_fn(|_| AtomicU64::new(CLOSED))));
            let to = state.blocks.len() * BLOCK;
            // The lowest first, so that the blocks fill up one after the other.
            state.free.extend((from..to).rev().filter_map(|number| u32::try_from(number).ok()));
        }
        let number = state.free.pop().unwrap_or_default();
        let block = state.blocks[number as usize / BLOCK].clone();
        let unit = WHOLE / u64::from(slots.map_or(ASSUMED_SLOTS, NonZeroU32::get));
        let seat = Seat { board: self.clone(), block, number, unit };
        seat.word().store(0, Ordering::Relaxed);
        seat
    }
}

impl Board {
    /// Whether any runner has to be looked at closely.
    #[inline]
    pub(crate) fn has_reluctant(&self) -> bool {
        self.reluctant.load(Ordering::Relaxed) > 0
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Board")
    }
}

/// Slots that are assumed of a runner that does not say. Four is what llama.cpp's server takes unless told
/// otherwise (its `--parallel`).
pub(crate) const ASSUMED_SLOTS: u32 = 4;

/// A runner's word on the board, free again when dropped.
pub(crate) struct Seat {
    board: Arc<Board>,
    block: Arc<Block>,
    number: u32,
    unit: u64,
}

impl Seat {
    #[inline]
    pub(crate) fn word(&self) -> &AtomicU64 {
        &self.block[self.number as usize % BLOCK]
    }

    /// Where the word is: its block, and its place there.
    pub(crate) fn place(&self) -> (&Arc<Block>, u32, u16) {
        let at = self.number as usize % BLOCK;
        // A block has 512 places.
        (&self.block, self.number / BLOCK as u32, at as u16)
    }

    #[inline]
    pub(crate) fn add(&self, requests: u32) {
        self.word().fetch_add(self.share(requests), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn subtract(&self, requests: u32) {
        self.word().fetch_sub(self.share(requests), Ordering::Relaxed);
    }

    pub(crate) fn set(&self, flag: u64, on: bool) {
        if on {
            self.word().fetch_or(flag, Ordering::Relaxed);
        } else {
            self.word().fetch_and(!flag, Ordering::Relaxed);
        }
    }

    /// What says on the board that the runner must be looked at closely.
    pub(crate) fn sign(&self) -> Sign {
        Sign { board: self.board.clone(), block: self.block.clone(), place: self.place().2 }
    }

    /// The board that it is on.
    pub(crate) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// The caller adds and subtracts the same numbers, so a cap on each keeps the sum right.
    fn share(&self, requests: u32) -> u64 {
        u64::from(requests.min(MOST)) * self.unit
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.word().swap(CLOSED, Ordering::Relaxed) & RELUCTANT != 0 {
            self.board.reluctant.fetch_sub(1, Ordering::Relaxed);
        }
        let mut state = self.board.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.free.push(self.number);
    }
}

/// Sets and clears [`RELUCTANT`] on a seat. Lives no longer than the seat.
pub(crate) struct Sign {
    board: Arc<Board>,
    block: Arc<Block>,
    place: u16,
}

impl Sign {
    pub(crate) fn set(&self, on: bool) {
        let word = &self.block[usize::from(self.place)];
        if on && word.fetch_or(RELUCTANT, Ordering::Relaxed) & RELUCTANT == 0 {
            self.board.reluctant.fetch_add(1, Ordering::Relaxed);
        }
        if !on && word.fetch_and(!RELUCTANT, Ordering::Relaxed) & RELUCTANT != 0 {
            self.board.reluctant.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sign").field(&self.place).finish()
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Seat").field(&self.number).finish()
    }
}

/// What to compare of a word: shares that differ only by the rounding of their unit are equal, and the flags
/// sort last.
#[inline]
pub(crate) fn comparable(word: u64) -> u64 {
    // A share's error is below one unit's rounding times the requests: under 2^16 of 2^40.
    ((word & !(CLOSED | RELUCTANT)) + (1 << 17)) >> 18 | (word & (CLOSED | RELUCTANT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_shares_compare_equal_whatever_the_slots() {
        let board = Arc::new(Board::default());
        for (few, many) in [(3, 6), (3, 9), (7, 14), (5, 20), (11, 33)] {
            let a = board.seat(NonZeroU32::new(few));
            let b = board.seat(NonZeroU32::new(many));
            a.add(1);
            (0..many / few).for_each(|_| b.add(1));
            let word = |seat: &Seat| comparable(seat.word().load(Ordering::Relaxed));
            assert_eq!(word(&a), word(&b), "1/{few} and {}/{many}", many / few);
            b.add(1);
            assert!(word(&a) < word(&b));
        }
    }

    #[test]
    fn flags_sort_last_and_seats_are_used_again() {
        let board = Arc::new(Board::default());
        let busy = board.seat(NonZeroU32::new(1));
        busy.add(1);
        let idle = board.seat(NonZeroU32::new(1));
        idle.sign().set(true);
        idle.sign().set(true);
        assert!(board.has_reluctant());
        let word = |seat: &Seat| comparable(seat.word().load(Ordering::Relaxed));
        assert!(word(&busy) < word(&idle));
        idle.sign().set(false);
        assert!(word(&busy) > word(&idle) && !board.has_reluctant());
        idle.sign().set(true);
        drop((busy, idle));
        assert!(!board.has_reluctant());
        let seats: Vec<_> = (0..=BLOCK).map(|_| board.seat(None)).collect();
        assert_eq!(board.state.lock().unwrap().blocks.len(), 2);
        drop(seats);
    }
}
