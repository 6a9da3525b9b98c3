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
use std::time::Duration;

use tokio::time::Instant;

use super::peak::{Moment, Peak};
use super::slots::{ALL, CLOSED, MOST, RELUCTANT, Slots, Unit, comparable, taken};

/// Words in a block: eight cache lines.
pub(crate) const BLOCK: usize = 64;

/// The first blocks do not count their changes: so few words are looked at as quickly as it would be found out
/// whether they have changed, and small fleets do without the counting.
const UNCOUNTED: usize = 2;

pub(crate) struct Block {
    words: [Slots; BLOCK],
    peaks: [Peak; BLOCK],
    changes: AtomicU64,
    is_counted: bool,
    /// Time zero of the peaks.
    made: Instant,
}

impl Block {
    fn new(is_counted: bool, made: Instant) -> Self {
        Self {
            words: std::array::from_fn(|_| Slots::closed()),
            peaks: std::array::from_fn(|_| Peak::new()),
            changes: AtomicU64::new(0),
            is_counted,
            made,
        }
    }

    #[inline]
    pub(crate) fn slots(&self, place: u16) -> &Slots {
        &self.words[usize::from(place) % BLOCK]
    }

    #[inline]
    pub(crate) fn peak(&self, place: u16) -> &Peak {
        &self.peaks[usize::from(place) % BLOCK]
    }

    /// A moment as the peaks count it.
    #[inline]
    pub(crate) fn moment(&self, now: Instant) -> Moment {
        Moment::of(now, self.made)
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
pub(crate) struct Board {
    /// Time zero of everything on it.
    made: Instant,
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
            state.blocks.push(Arc::new(Block::new(is_counted, self.made)));
            let to = state.blocks.len() * BLOCK;
            // The lowest first, so that the blocks fill up one after the other.
            state.free.extend((from..to).rev().filter_map(|number| u32::try_from(number).ok()));
        }
        let number = state.free.pop().unwrap_or_default();
        let block = state.blocks[number as usize / BLOCK].clone();
        let limit = slots.map_or(MOST, NonZeroU32::get).min(MOST);
        let spot = Spot {
            block,
            unit: Unit::of(slots.map_or(ASSUMED_SLOTS, NonZeroU32::get)),
            // Both fit: a block has 64 places, and the most is what 16 bits hold.
            limit: limit as u16,
            place: (number as usize % BLOCK) as u16,
        };
        spot.block.peak(spot.place).clear();
        spot.slots().reset(true);
        spot.block.changed();
        Seat { spot, number, board: self.clone() }
    }

    /// Whether any runner has to be looked at closely.
    #[inline]
    pub(crate) fn has_reluctant(&self) -> bool {
        self.reluctant.load(Ordering::Relaxed) > 0
    }
}

impl Default for Board {
    fn default() -> Self {
        Self { made: Instant::now(), state: Mutex::default(), reluctant: AtomicU32::new(0) }
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

/// Where a runner's word is, and what its requests add to it: all that a pick needs, in 16 bytes.
#[derive(Clone)]
pub(crate) struct Spot {
    block: Arc<Block>,
    unit: Unit,
    /// The most to be taken at once.
    limit: u16,
    place: u16,
}

/// A runner with room, as its word shows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    word: u64,
    unit: Unit,
}

impl Look {
    /// What a word shows; `None` if no more than `limit` may be taken and are, or nothing new is.
    #[inline]
    pub(super) fn at(word: u64, unit: Unit, limit: u16) -> Option<Self> {
        let has_room = word & CLOSED == 0 && taken(word) < u32::from(limit);
        has_room.then_some(Self { word, unit })
    }

    /// Whether nothing is the matter with it.
    #[inline]
    pub(crate) fn is_ordinary(&self) -> bool {
        self.word & RELUCTANT == 0
    }

    /// The share of its slots in use, by whomever.
    #[inline]
    pub(crate) fn share(&self) -> f64 {
        comparable(self.word & !RELUCTANT) as f64 / f64::from(ALL)
    }

    /// Requests of ours.
    #[inline]
    pub(crate) fn in_flight(&self) -> u32 {
        taken(self.word)
    }

    /// Requests of whomever.
    #[inline]
    pub(crate) fn requests(&self) -> u64 {
        self.unit.requests(self.word)
    }
}

/// What became of an attempt to take a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    Taken,
    /// Nothing was taken: it is full, or closed.
    Shut,
    /// Nothing was taken: it may have to be spared.
    Reluctant,
}

impl Spot {
    #[inline]
    fn slots(&self) -> &Slots {
        self.block.slots(self.place)
    }

    /// The peak of the time to first byte, in seconds, or `None` if nothing was measured.
    #[inline]
    pub(crate) fn peak_s(&self, now: Instant) -> Option<f32> {
        self.block.peak(self.place).get(self.moment(now))
    }

    /// How long ago a time to first byte was measured last, in seconds; 0 if none was.
    #[inline]
    pub(crate) fn measured_ago_s(&self, now: Instant) -> f32 {
        self.block.peak(self.place).age_s(self.moment(now))
    }

    pub(crate) fn add_peak(&self, first_byte: Duration, now: Instant) {
        self.block.peak(self.place).add(first_byte, self.moment(now));
    }

    #[inline]
    fn moment(&self, now: Instant) -> Moment {
        self.block.moment(now)
    }

    /// What a choice looks at; `None` if it is full or takes nothing new.
    #[inline]
    pub(crate) fn look(&self) -> Option<Look> {
        Look::at(self.slots().read(), self.unit, self.limit)
    }

    /// What one request is of its word.
    pub(super) fn unit(&self) -> Unit {
        self.unit
    }

    pub(crate) fn block(&self) -> &Arc<Block> {
        &self.block
    }

    /// Place in the block.
    pub(crate) fn place(&self) -> u16 {
        self.place
    }

    /// The most to be taken at once.
    pub(crate) fn limit(&self) -> u16 {
        self.limit
    }

    #[inline]
    pub(crate) fn taken(&self) -> u32 {
        self.slots().taken()
    }

    /// Whether it takes nothing new.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.slots().read() & CLOSED != 0
    }

    /// Whether nothing is the matter with it.
    #[inline]
    pub(crate) fn is_ordinary(&self) -> bool {
        self.slots().read() & RELUCTANT == 0
    }

    /// Takes a slot of a runner with which nothing is the matter.
    #[inline]
    pub(crate) fn take(&self) -> Take {
        match self.slots().take(self.unit, u32::from(self.limit), CLOSED | RELUCTANT) {
            Ok(()) => {
                self.block.changed();
                Take::Taken
            }
            Err(word) if word & (CLOSED | RELUCTANT) == RELUCTANT => Take::Reluctant,
            Err(_) => Take::Shut,
        }
    }

    /// Takes a slot even if it may have to be spared.
    pub(crate) fn take_anyway(&self) -> bool {
        let taken = self.slots().take(self.unit, u32::from(self.limit), CLOSED).is_ok();
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
}

/// A runner's word on the board, free again when dropped.
pub(crate) struct Seat {
    spot: Spot,
    number: u32,
    board: Arc<Board>,
}

impl std::ops::Deref for Seat {
    type Target = Spot;

    fn deref(&self) -> &Spot {
        &self.spot
    }
}

impl Seat {
    pub(crate) fn spot(&self) -> &Spot {
        &self.spot
    }

    /// Unlike that of any other seat that is in use.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn block_number(&self) -> usize {
        self.number as usize / BLOCK
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
        Sign { board: self.board.clone(), block: self.block.clone(), place: self.place }
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
            assert!(a.take_anyway());
            (0..many / few).for_each(|_| assert!(b.take_anyway()));
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
        assert!(seat.take_anyway() && !seat.take_anyway());
        seat.close(true);
        assert!(word(&seat) >= comparable(CLOSED));
        seat.close(false);
        seat.show(0, u32::MAX);
        let idle = board.seat(NonZeroU32::new(1));
        assert!(seat.give_back());
        assert_eq!(word(&seat), word(&idle));
        // One that does not say is full when it cannot be counted any more.
        let endless = board.seat(None);
        (0..MOST).for_each(|_| assert!(endless.take_anyway()));
        assert!(!endless.take_anyway() && endless.slots().read() < RELUCTANT);
        (0..MOST).for_each(|_| assert_eq!(endless.give_back(), endless.taken() == 0));
    }

    #[test]
    fn flags_sort_last_and_seats_are_used_again() {
        let board = Arc::new(Board::default());
        let busy = board.seat(NonZeroU32::new(1));
        assert!(busy.take_anyway());
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
    fn what_is_closed_takes_nothing_and_what_must_be_spared_only_anyway() {
        let board = Arc::new(Board::default());
        let seat = board.seat(NonZeroU32::new(2));
        assert!(seat.take_anyway());
        seat.close(true);
        assert!(!seat.take_anyway() && seat.taken() == 1);
        seat.close(false);
        seat.sign().set(true);
        assert_eq!(seat.take(), Take::Reluctant);
        assert!(seat.take_anyway());
        assert_eq!(seat.taken(), 2);
        seat.sign().set(false);
        assert_eq!(seat.take(), Take::Shut);
        assert!(!seat.give_back());
        assert_eq!(seat.take(), Take::Taken);
    }
}
