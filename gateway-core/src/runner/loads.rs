//! Where on the board the runners of a set are, and who of them has the least to do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::board::{Block, Board};
use super::slots::{ALL, CLOSED, RELUCTANT, comparable, taken};
use super::{Live, Runner};

/// Where on the board the runners of a set are.
pub(crate) struct Loads {
    rows: Vec<Row>,
    /// By place in the set: the row, the place in its block, and the limit.
    seats: Vec<(u32, u16, u16)>,
    /// What was found at the last look at each row. Locked for some hundred nanoseconds at most, and never
    /// waited for: whoever does not get it looks at all words.
    looks: Mutex<Vec<Option<Look>>>,
    runners: Vec<Arc<Live>>,
    board: Option<Arc<Board>>,
    made: Instant,
    /// When reports were last looked through for stale ones, in seconds since `made`.
    swept: AtomicU64,
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
struct Look {
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

/// What the board tells of one runner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Glance {
    /// It has room; the share of its slots in use.
    Room(f64),
    /// The same, but it may have to be spared.
    Reluctant(f64),
    /// It is full, or takes nothing new.
    Shut,
}

impl Loads {
    pub(crate) fn of(runners: &[Arc<Runner>]) -> Self {
        let mut rows: Vec<Row> = Vec::new();
        // By the block's number, the number of its row plus one.
        let mut row_of: Vec<u32> = Vec::new();
        let mut seats = Vec::with_capacity(runners.len());
        for (runner, at) in runners.iter().zip(0_u32..) {
            let seat = runner.live().seat();
            let (block, number, place) = seat.place();
            let number = number as usize;
            if row_of.len() <= number {
                row_of.resize(number + 1, 0);
            }
            if row_of[number] == 0 {
                rows.push(Row { block: block.clone(), members: Vec::new() });
                row_of[number] = u32::try_from(rows.len()).unwrap_or(u32::MAX);
            }
            let row = row_of[number] - 1;
            let limit = u16::try_from(seat.limit()).unwrap_or(u16::MAX);
            rows[row as usize].members.push(Member { place, limit, at });
            seats.push((row, place, limit));
        }
        rows.iter_mut().for_each(|row| row.members.sort_unstable());
        Self {
            seats,
            looks: Mutex::new(vec![None; rows.len()]),
            rows,
            runners: runners.iter().map(|runner| runner.shared_live()).collect(),
            board: runners.first().map(|runner| runner.live().seat().board().clone()),
            made: Instant::now(),
            swept: AtomicU64::new(0),
        }
    }

    /// Takes stale reports off the board, at most once a second: a word does not age by itself.
    #[inline]
    pub(crate) fn sweep(&self, now: Instant) {
        let second = now.saturating_duration_since(self.made).as_secs();
        if second > self.swept.load(Ordering::Relaxed) {
            self.sweep_at(second, now);
        }
    }

    #[cold]
    fn sweep_at(&self, second: u64, now: Instant) {
        if self.swept.fetch_max(second, Ordering::Relaxed) < second {
            self.runners.iter().for_each(|live| live.expire_report(now));
        }
    }

    /// What the board tells of a runner, by its place in the set.
    #[inline]
    pub(crate) fn glance(&self, at: usize) -> Glance {
        let Some(&(row, place, limit)) = self.seats.get(at) else { return Glance::Shut };
        let word = self.rows[row as usize].block.slots(place).read();
        if word & CLOSED != 0 || taken(word) >= u32::from(limit) {
            return Glance::Shut;
        }
        let share = comparable(word & !RELUCTANT) as f64 / ALL as f64;
        if word & RELUCTANT == 0 { Glance::Room(share) } else { Glance::Reluctant(share) }
    }

    /// The runner with the smallest share of slots in use. Those that may have to be spared are asked about.
    pub(crate) fn least(&self, now: Instant, is_willing: impl Fn(&Live) -> bool) -> Least {
        self.sweep(now);
        // Somebody else looks just now: look at everything then.
        let mut looks = self.looks.try_lock().ok();
        let mut look = |number: usize, row: &Row| {
            let Some(changes) = row.block.changes() else { return row.look() };
            let Some(looks) = looks.as_mut() else { return row.look() };
            match &mut looks[number] {
                Some(look) if look.changes == changes => look.best,
                look => look.insert(Look { changes, best: row.look() }).best,
            }
        };
        let mut least = Best::NOBODY;
        let mut first = 0;
        for (number, row) in self.rows.iter().enumerate() {
            let best = look(number, row);
            if best.share < least.share {
                (least, first) = (best, number);
            } else if best.share == least.share {
                least.ties += best.ties;
            }
        }
        if self.board.as_ref().is_some_and(|board| board.has_reluctant()) {
            match self.least_spared(least, is_willing) {
                Least::Nobody => {}
                found => return found,
            }
        }
        if least.ties == 0 {
            return Least::Nobody;
        }
        // Found again by a second look, which ends early: cheaper than drawing at every tie.
        let mut nth = if least.ties > 1 { fastrand::u32(..least.ties) } else { 0 };
        for (number, row) in self.rows.iter().enumerate().skip(first) {
            let best = look(number, row);
            if best.share != least.share {
                continue;
            }
            if nth >= best.ties {
                nth -= best.ties;
                continue;
            }
            // Others may have changed it meanwhile.
            return row.nth(least.share, nth).map_or(Least::Unclear, |at| Least::At(at as usize));
        }
        Least::Unclear
    }

    /// Among those that may have to be spared, who does better than the `least` of the others.
    #[cold]
    fn least_spared(&self, mut least: Best, is_willing: impl Fn(&Live) -> bool) -> Least {
        let mut found = Least::Nobody;
        for row in &self.rows {
            for member in &row.members {
                let word = row.block.slots(member.place).read();
                let is_spared = word & (CLOSED | RELUCTANT) == RELUCTANT;
                if !is_spared || taken(word) >= u32::from(member.limit) {
                    continue;
                }
                let (share, at) = (comparable(word & !RELUCTANT), member.at as usize);
                if share > least.share || !self.runners.get(at).is_some_and(|live| is_willing(live)) {
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

    /// Place in the set of the n-th that has this share, or of the last one if there are fewer by now.
    fn nth(&self, share: u64, mut nth: u32) -> Option<u32> {
        let mut found = None;
        for member in self.members.iter().filter(|member| self.share(member) == share) {
            found = Some(member.at);
            if nth == 0 {
                break;
            }
            nth -= 1;
        }
        found
    }

    /// `u64::MAX` of one who has no room or may have to be spared.
    #[inline]
    fn share(&self, member: &Member) -> u64 {
        let word = self.block.slots(member.place).read();
        let is_out = word >= RELUCTANT || taken(word) >= u32::from(member.limit);
        if is_out { u64::MAX } else { comparable(word) }
    }
}
