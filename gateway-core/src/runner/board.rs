//! The load of all runners of a registry, close together in memory.
//!
//! An exact choice must look at every runner. What it looks at is one word per runner ([`Slots`]), and words
//! lie in blocks, so ten thousand runners are some 80 KB read in order instead of ten thousand pointers
//! followed. In large fleets it need not even do that: blocks count their changes, and whoever has looked at
//! one before looks again only when something has changed (see [`Loads`](super::loads::Loads)).

use std::fmt;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::slots::{CLOSED, MOST, RELUCTANT, Slots, Unit};

/// Words in a block: eight cache lines.
pub(crate) const BLOCK: usize = 64;

/// The first blocks do not count their changes: so few words are looked at as quickly as it would be found out
/// whether they have changed, and small fleets do without the counting.
const UNCOUNTED: usize = 4;

pub(crate) struct Block {
    words: [Slots; BLOCK],
    changes: AtomicU64,
    is_counted: bool,
}

impl Block {
    fn new(is_counted: bool) -> Self {
        Self { words: std::array::from_fn(|_| Slots::closed()), changes: AtomicU64::new(0), is_counted }
    }

    #[inline]
    pub(crate) fn slots(&self, place: u16) -> &Slots {
        &self.words[usize::from(place) % BLOCK]
    }

    /// How often one of its words has changed, if that is counted. Whoever reads a word afterwards sees at
    /// least as many changes.
    #[inline]
    pub(crate) fn changes(&self) -> Option<u64> {
        self.is_counted.then(|| self.changes.load(Ordering::Acquire))
    }

    /// Called after every change of a word.
    #[inline]
    fn changed(&self) {
        if self.is_counted {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }
}

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
            let is_counted = state.blocks.len() >= UNCOUNTED;
            state.blocks.push(Arc::new(Block::new(is_counted)));
            let to = state.blocks.len() * BLOCK;
            // The lowest first, so that the blocks fill up one after the other.
            state.free.extend((from..to).rev().filter_map(|number| u32::try_from(number).ok()));
        }
        let number = state.free.pop().unwrap_or_default();
        let block = state.blocks[number as usize / BLOCK].clone();
        let seat = Seat {
            block,
            unit: Unit::of(slots.map_or(ASSUMED_SLOTS, NonZeroU32::get)),
            number,
            limit: slots.map_or(MOST, NonZeroU32::get).min(MOST),
            board: self.clone(),
        };
        seat.slots().reset(true);
        seat.block.changed();
        seat
    }

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
    block: Arc<Block>,
    unit: Unit,
    number: u32,
    /// The most to be taken at once.
    limit: u32,
    board: Arc<Board>,
}

impl Seat {
    #[inline]
    fn slots(&self) -> &Slots {
        &self.block.words[self.number as usize % BLOCK]
    }

    /// Unlike that of any other seat that is in use.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Where the word is: its block, the block's number, and its place there.
    pub(crate) fn place(&self) -> (&Arc<Block>, u32, u16) {
        let at = self.number as usize % BLOCK;
        // A block has 64 places.
        (&self.block, self.number / BLOCK as u32, at as u16)
    }

    /// The most to be taken at once.
    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    #[inline]
    pub(crate) fn taken(&self) -> u32 {
        self.slots().taken()
    }

    /// Takes a slot, if there is one and the runner is not closed.
    #[inline]
    pub(crate) fn take(&self) -> bool {
        let taken = self.slots().take(self.unit, self.limit);
        if taken {
            self.block.changed();
        }
        taken
    }

    /// Gives a slot back. Whether it was the last.
    #[inline]
    pub(crate) fn give_back(&self) -> bool {
        let was_last = self.slots().give_back(self.unit);
        self.block.changed();
        was_last
    }

    /// Shows so many requests of others instead of so many.
    pub(crate) fn show(&self, others: u32, instead_of: u32) {
        self.slots().show(self.unit, others, instead_of);
        self.block.changed();
    }

    /// Takes nothing new from now on, or does again.
    pub(crate) fn close(&self, closed: bool) {
        self.slots().set(CLOSED, closed);
        self.block.changed();
    }

    /// What says on the board that the runner must be looked at closely.
    pub(crate) fn sign(&self) -> Sign {
        Sign { board: self.board.clone(), block: self.block.clone(), place: self.place().2 }
    }

    /// The board that it is on.
    pub(crate) fn board(&self) -> &Arc<Board> {
        &self.board
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.slots().reset(false) & RELUCTANT != 0 {
            self.board.reluctant.fetch_sub(1, Ordering::Relaxed);
        }
        self.block.changed();
        let mut state = self.board.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.free.push(self.number);
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Seat").field(&self.number).finish()
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
        if !self.block.slots(self.place).set(RELUCTANT, on) {
            return;
        }
        self.block.changed();
        if on {
            self.board.reluctant.fetch_add(1, Ordering::Relaxed);
        } else {
            self.board.reluctant.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sign").field(&self.place).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::slots::comparable;
    use super::*;

    fn word(seat: &Seat) -> u64 {
        comparable(seat.slots().read())
    }

    #[test]
    fn equal_shares_compare_equal_whatever_the_slots() {
        let board = Arc::new(Board::default());
        for (few, many) in [(1, 64), (3, 6), (3, 9), (7, 14), (5, 20), (11, 33), (29, 87), (48, 96)] {
            let a = board.seat(NonZeroU32::new(few));
            let b = board.seat(NonZeroU32::new(many));
            assert!(a.take());
            (0..many / few).for_each(|_| assert!(b.take()));
            assert_eq!(word(&a), word(&b), "1/{few} and {}/{many}", many / few);
            b.show(1, 0);
            assert!(word(&a) < word(&b));
            b.show(0, 1);
            assert_eq!(word(&a), word(&b));
            assert_eq!((a.taken(), b.taken()), (1, many / few));
        }
    }

    #[test]
    fn no_count_reaches_the_flags() {
        let board = Arc::new(Board::default());
        let seat = board.seat(NonZeroU32::new(1));
        seat.show(u32::MAX, 0);
        seat.show(u32::MAX, u32::MAX);
        assert!(seat.take() && !seat.take());
        seat.close(true);
        assert!(word(&seat) >= comparable(CLOSED));
        seat.close(false);
        seat.show(0, u32::MAX);
        let idle = board.seat(NonZeroU32::new(1));
        assert!(seat.give_back());
        assert_eq!(word(&seat), word(&idle));
        // One that does not say is full when it cannot be counted any more.
        let endless = board.seat(None);
        (0..MOST).for_each(|_| assert!(endless.take()));
        assert!(!endless.take() && endless.slots().read() < RELUCTANT);
        (0..MOST).for_each(|_| assert_eq!(endless.give_back(), endless.taken() == 0));
    }

    #[test]
    fn flags_sort_last_and_seats_are_used_again() {
        let board = Arc::new(Board::default());
        let busy = board.seat(NonZeroU32::new(1));
        assert!(busy.take());
        let idle = board.seat(NonZeroU32::new(1));
        idle.sign().set(true);
        idle.sign().set(true);
        assert!(board.has_reluctant());
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

    #[test]
    fn what_is_closed_takes_nothing() {
        let board = Arc::new(Board::default());
        let seat = board.seat(NonZeroU32::new(2));
        assert!(seat.take());
        seat.close(true);
        assert!(!seat.take() && seat.taken() == 1);
        seat.close(false);
        assert!(seat.take());
    }
}
