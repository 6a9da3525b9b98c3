//! The counter of slots: the one place where a slot is taken and given back.
//!
//! One word has it all: how many requests of ours are on the runner, the share of its slots that is in use by
//! whomever, and whether it takes anything new. So a choice reads one word, and whoever takes a slot checks
//! the limit, counts and shows it in one step.

// From the parent, so that a test can check every interleaving with loom's types.
use super::sync::{AtomicU64, Ordering};

/// Takes nothing new at all.
pub(crate) const CLOSED: u64 = 1 << 63;
/// May have to be spared: whoever chooses looks closer.
pub(crate) const RELUCTANT: u64 = 1 << 62;

/// Our own requests are counted in the lowest bits.
const COUNT_BITS: u32 = 16;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
/// The most requests of ours that one runner can have at once, also if it says that it takes more or does not
/// say: what fits into the count.
pub(crate) const MOST: u32 = COUNT as u32;

/// The share of one request on a runner with a single slot. A runner with more slots adds a fraction of it.
const WHOLE: u32 = 1 << 30;
/// What others' requests add to the share at most: 16,384 times all slots. With it and with as many requests
/// of ours as can be counted, the share stays clear of the flags, also while one report replaces another.
const MOST_FOREIGN: u64 = 1 << 44;

#[derive(Debug)]
pub(crate) struct Slots {
    word: AtomicU64,
}

/// How much one request is on a runner.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    share: u32,
}

impl Unit {
    /// On a runner with so many slots, at least 1.
    pub(crate) fn of(slots: u32) -> Self {
        let slots = slots.max(1);
        Self { share: (WHOLE.saturating_add(slots / 2) / slots).max(1) }
    }

    #[inline]
    fn one(self) -> u64 {
        u64::from(self.share) << COUNT_BITS | 1
    }

    /// How many requests, of whomever, make up the share of a word.
    #[inline]
    pub(crate) fn requests(self, word: u64) -> u64 {
        ((word & !(CLOSED | RELUCTANT)) >> COUNT_BITS) / u64::from(self.share)
    }

    fn others(self, requests: u32) -> u64 {
        (u64::from(requests) * u64::from(self.share)).min(MOST_FOREIGN) << COUNT_BITS
    }
}

impl Slots {
    /// Those of nobody.
    pub(crate) fn closed() -> Self {
        Self { word: AtomicU64::new(CLOSED) }
    }

    /// Begins or ends their use by one runner. Whether anything had to be spared is said by the old word.
    pub(crate) fn reset(&self, open: bool) -> u64 {
        self.word.swap(if open { 0 } else { CLOSED }, Ordering::SeqCst)
    }

    /// Takes one if they have none of these flags and fewer than `limit`, at most [`MOST`], are taken. If not,
    /// the word as it was.
    #[inline]
    pub(crate) fn take(&self, unit: Unit, limit: u32, unless: u64) -> Result<(), u64> {
        let next = |word: u64| (word & unless == 0 && taken(word) < limit).then(|| word + unit.one());
        self.word.fetch_update(Ordering::SeqCst, Ordering::Relaxed, next).map(drop)
    }

    /// Gives one back. Whether it was the last.
    #[inline]
    pub(crate) fn give_back(&self, unit: Unit) -> bool {
        // Before the bell's count of waiters is read: one of the two sides sees the other.
        let before = taken(self.word.fetch_sub(unit.one(), Ordering::SeqCst));
        debug_assert!(before > 0, "a reservation was given back twice");
        before == 1
    }

    /// Shows so many requests of others instead of so many.
    pub(crate) fn show(&self, unit: Unit, others: u32, instead_of: u32) {
        // Added first, so that the runner never looks idler than both say.
        self.word.fetch_add(unit.others(others), Ordering::SeqCst);
        self.word.fetch_sub(unit.others(instead_of), Ordering::SeqCst);
    }

    /// Sets or clears a flag. Whether that changed it.
    pub(crate) fn set(&self, flag: u64, on: bool) -> bool {
        let before = if on {
            self.word.fetch_or(flag, Ordering::SeqCst)
        } else {
            self.word.fetch_and(!flag, Ordering::SeqCst)
        };
        (before & flag != 0) != on
    }

    #[inline]
    pub(crate) fn taken(&self) -> u32 {
        taken(self.word.load(Ordering::Acquire))
    }

    /// For [`taken`] and [`comparable`].
    #[inline]
    pub(crate) fn read(&self) -> u64 {
        self.word.load(Ordering::Relaxed)
    }
}

/// How many requests of ours a word counts.
#[inline]
pub(crate) fn taken(word: u64) -> u32 {
    (word & COUNT) as u32
}

/// What to compare of a word: the share in use, and the flags, which sort last. Shares that differ only by the
/// rounding of their unit are equal.
///
/// Rounded to 1/[`ALL`] of all slots. Units are wrong by half of 1/2^30, so two equal shares come out equal as
/// long as the runners have less than some 90 slots (or any number that is twice, four times, … as much), and
/// different ones different with up to 362 slots each.
#[inline]
pub(crate) fn comparable(word: u64) -> u64 {
    const ROUNDED: u32 = COUNT_BITS + 13;
    // No share is so large that it would carry into the flags.
    (word + (1 << (ROUNDED - 1))) >> ROUNDED
}

/// What [`comparable`] makes of all slots.
pub(crate) const ALL: u32 = WHOLE >> 13;
