//! Where on the board the runners of a set are, and who of them has the least to do.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::board::{ASSUMED_SLOTS, BLOCK, Block, Board, Look};
use super::slots::{CLOSED, RELUCTANT, Unit, comparable, taken};
use super::{Live, Runner};
use crate::balance::MeanShare;

/// Where on the board the runners of a set are. Made for that set, and asked with it.
pub(crate) struct Loads {
    rows: Vec<Row>,
    /// By the block's number, the number of its row plus one.
    row_of: Vec<u32>,
    /// By place in the set.
    seats: Vec<Place>,
    /// What was found at the last look at each row. Locked for some hundred nanoseconds at most, and never
    /// waited for: whoever does not get it looks at all words.
    looks: Mutex<Vec<Option<Seen>>>,
    /// Whether there is a row of which it is worth knowing.
    is_counted: bool,
    board: Option<Arc<Board>>,
}

/// All that a choice by load needs of a runner, in 16 bytes: whoever looks at a few of many need not follow their
/// pointers.
#[derive(Clone, Copy)]
struct Place {
    row: u32,
    unit: Unit,
    /// Its slots; [`ASSUMED_SLOTS`] if it does not say.
    slots: u32,
    /// In the block.
    place: u16,
    /// The most to be taken at once; nothing if it says itself that it cannot serve.
    limit: u16,
}

/// The runners of a set whose words are in one block.
struct Row {
    block: Arc<Block>,
    members: Vec<Member>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Member {
    /// Place in the block.
    place: u16,
    /// The most to be taken at once, which fits: see [`MOST`](super::slots::MOST).
    limit: u16,
    /// Place in the set.
    at: u32,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// How many changes the block had counted before.
    changes: u64,
    best: Best,
}

/// The smallest share of a row, and how many have it.
#[derive(Debug, Clone, Copy)]
struct Best {
    share: u64,
    ties: u32,
}

impl Best {
    const NOBODY: Self = Self { share: u64::MAX, ties: 0 };
}

/// Who has the smallest share of slots in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Least {
    /// The one at this place in the set, drawn evenly from all that have as little.
    At(usize),
    /// Nobody has room.
    Nobody,
    /// They change too quickly to say, or have to be looked at more closely.
    Unclear,
}

impl Loads {
    pub(crate) fn of(runners: &[Arc<Runner>]) -> Self {
        let mut rows: Vec<Row> = Vec::new();
        let mut row_of: Vec<u32> = Vec::new();
        let mut seats = Vec::with_capacity(runners.len());
        for (runner, at) in runners.iter().zip(0_u32..) {
            let seat = runner.live().seat();
            let number = seat.block_number();
            if row_of.len() <= number {
                row_of.resize(number + 1, 0);
            }
            if row_of[number] == 0 {
                rows.push(Row { block: seat.block().clone(), members: Vec::new() });
                row_of[number] = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            }
            let row = row_of[number] - 1;
            let limit = if runner.status().health.is_operational() { seat.limit() } else { 0 };
            let place = seat.place();
            rows[row as usize].members.push(Member { place, limit, at });
            let slots = runner.spec().slots.map_or(ASSUMED_SLOTS, NonZeroU32::get);
            seats.push(Place { row, unit: seat.unit(), slots, place, limit });
        }
        rows.iter_mut().for_each(|row| row.members.sort_unstable());
        Self {
            row_of,
            seats,
            looks: Mutex::new(vec![None; rows.len()]),
            is_counted: rows.iter().any(|row| row.block.changes().is_some()),
            rows,
            board: runners.first().map(|runner| runner.live().seat().board().clone()),
        }
    }

    /// Whether a runner, by its place in the set, has room and takes something new.
    #[inline]
    pub(crate) fn has_room(&self, at: usize) -> bool {
        self.look(at).is_some()
    }

    /// A runner by its place in the set; `None` if it is full or takes nothing new.
    #[inline]
    pub(crate) fn look(&self, at: usize) -> Option<Look> {
        let Place { row, unit, place, limit, .. } = *self.seats.get(at)?;
        Look::at(self.rows[row as usize].block.slots(place).read(), unit, limit)
    }

    /// How much of the slots of those with whom nothing is the matter our own requests use.
    pub(crate) fn mean_share(&self) -> MeanShare {
        let mut mean = MeanShare { in_flight: 0, slots: 0 };
        for seat in self.seats.iter().filter(|seat| seat.limit > 0) {
            let word = self.rows[seat.row as usize].block.slots(seat.place).read();
            if word < RELUCTANT {
                mean.in_flight += u64::from(taken(word));
                mean.slots += u64::from(seat.slots);
            }
        }
        mean
    }

    /// Where in the set the runner with this seat is, if it is there.
    pub(crate) fn place_of(&self, number: u32) -> Option<usize> {
        let row = self.row_of.get(number as usize / BLOCK)?.checked_sub(1)?;
        let (members, place) = (&self.rows[row as usize].members, number as usize % BLOCK);
        let member = members.binary_search_by_key(&place, |member| usize::from(member.place)).ok()?;
        Some(members[member].at as usize)
    }

    /// Its slots, assumed if it does not say.
    #[inline]
    pub(crate) fn slots(&self, at: usize) -> u32 {
        self.seats.get(at).map_or(ASSUMED_SLOTS, |place| place.slots)
    }

    /// The peak of its time to first byte in seconds, or `None` if nothing was measured.
    #[inline]
    pub(crate) fn peak_s(&self, at: usize, now: Instant) -> Option<f32> {
        let Place { row, place, .. } = *self.seats.get(at)?;
        let block = &self.rows[row as usize].block;
        block.peak(place).get(block.moment(now))
    }

    /// The runner with the smallest share of slots in use. Those that may have to be spared are asked about.
    pub(crate) fn least(&self, runners: &[Arc<Runner>], is_willing: impl Fn(&Live) -> bool) -> Least {
        // Somebody else looks just now: look at everything then.
        let mut looks = if self.is_counted { self.looks.try_lock().ok() } else { None };
        let mut least = Best::NOBODY;
        let mut first = 0;
        for (number, row) in self.rows.iter().enumerate() {
            let look = looks.as_mut().and_then(|looks| looks.get_mut(number));
            let best = row.look_anew(look);
            if best.share < least.share {
                (least, first) = (best, number);
            } else if best.share == least.share {
                least.ties += best.ties;
            }
        }
        if self.board.as_ref().is_some_and(|board| board.has_reluctant()) {
            match self.least_spared(least, runners, is_willing) {
                Least::Nobody => {}
                found => return found,
            }
        }
        if least.ties == 0 {
            return Least::Nobody;
        }
        // Found again by a second look, which ends early: cheaper than drawing at every tie.
        let mut nth = if least.ties > 1 { fastrand::u32(..least.ties) } else { 0 };
        let mut found = None;
        for (number, row) in self.rows.iter().enumerate().skip(first) {
            let known = looks.as_ref().and_then(|looks| looks[number]);
            if let Some(Seen { best, .. }) = known
                && (best.share != least.share || nth >= best.ties)
            {
                nth -= if best.share == least.share { best.ties } else { 0 };
                continue;
            }
            match row.nth(least.share, nth) {
                Ok(at) => return Least::At(at),
                Err((others, last)) => {
                    nth -= others;
                    found = last.or(found);
                }
            }
        }
        // Some of them have changed meanwhile.
        found.map_or(Least::Unclear, Least::At)
    }

    /// Among those that may have to be spared, who does better than the `least` of the others.
    #[cold]
    fn least_spared(
        &self,
        mut least: Best,
        runners: &[Arc<Runner>],
        is_willing: impl Fn(&Live) -> bool,
    ) -> Least {
        let mut found = Least::Nobody;
        for row in &self.rows {
            for member in &row.members {
                let word = row.block.slots(member.place).read();
                let is_spared = word & (CLOSED | RELUCTANT) == RELUCTANT;
                if !is_spared || taken(word) >= u32::from(member.limit) {
                    continue;
                }
                let (share, at) = (comparable(word & !RELUCTANT), member.at as usize);
                if share > least.share || !runners.get(at).is_some_and(|runner| is_willing(runner.live())) {
                    continue;
                }
                let ties = if share < least.share { 1 } else { least.ties.saturating_add(1) };
                if share < least.share || fastrand::u32(..ties) == 0 {
                    found = Least::At(at);
                }
                least = Best { share, ties };
            }
        }
        found
    }
}

impl Row {
    /// The smallest share of those that have room and need not be spared.
    fn look(&self) -> Best {
        let mut best = Best::NOBODY;
        for member in &self.members {
            let share = self.share(member);
            if share < best.share {
                best = Best { share, ties: 1 };
            } else {
                best.ties += u32::from(share == best.share);
            }
        }
        if best.share == u64::MAX { Best::NOBODY } else { best }
    }

    /// The same, without looking if nothing has changed since the last look.
    #[inline]
    fn look_anew(&self, last: Option<&mut Option<Seen>>) -> Best {
        let (Some(last), Some(changes)) = (last, self.block.changes()) else { return self.look() };
        match last {
            Some(look) if look.changes == changes => look.best,
            look => look.insert(Seen { changes, best: self.look() }).best,
        }
    }

    /// Place in the set of the n-th that has this share; if there are fewer, how many there are, and the last.
    fn nth(&self, share: u64, nth: u32) -> Result<usize, (u32, Option<usize>)> {
        let (mut count, mut last) = (0, None);
        for member in self.members.iter().filter(|member| self.share(member) == share) {
            if count == nth {
                return Ok(member.at as usize);
            }
            (count, last) = (count + 1, Some(member.at as usize));
        }
        Err((count, last))
    }

    /// `u64::MAX` of one who has no room or may have to be spared.
    #[inline]
    fn share(&self, member: &Member) -> u64 {
        let word = self.block.slots(member.place).read();
        let is_out = word >= RELUCTANT || taken(word) >= u32::from(member.limit);
        if is_out { u64::MAX } else { comparable(word) }
    }
}
