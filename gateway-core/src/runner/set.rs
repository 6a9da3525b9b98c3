//! Runners among whom one is chosen, with what is prepared when the set changes so that a choice is quick.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use super::board::{Block, Board, CLOSED, RELUCTANT, comparable};
use super::turns::{Tick, Turns};
use super::typical::{self, Typical};
use super::{Live, Runner};
use crate::names::RunnerKey;

/// Runners in a row. Never changes. What strategies need to find one of them quickly is made at the first
/// use, once for each change of the fleet, and shared by all requests until the next.
pub struct RunnerSet {
    runners: Vec<Arc<Runner>>,
    loads: OnceLock<Loads>,
    turns: OnceLock<Turns>,
    /// Those who go round go on where they are when the set changes.
    round: Tick,
    weighted_round: Tick,
    typical: typical::Cached,
}

impl RunnerSet {
    /// A set of these runners.
    pub fn new(runners: Vec<Arc<Runner>>) -> Self {
        Self {
            runners,
            loads: OnceLock::new(),
            turns: OnceLock::new(),
            round: Tick::default(),
            weighted_round: Tick::default(),
            typical: typical::Cached::new(),
        }
    }

    /// The set that comes after this one.
    fn next(&self, runners: Vec<Arc<Runner>>) -> Self {
        Self { round: self.round.clone(), weighted_round: self.weighted_round.clone(), ..Self::new(runners) }
    }

    pub(crate) fn without(&self, key: &RunnerKey) -> Self {
        self.next(self.runners.iter().filter(|runner| runner.key() != key).cloned().collect())
    }

    pub(crate) fn with(&self, runner: &Arc<Runner>) -> Self {
        self.with_at(self.runners.len(), runner.clone())
    }

    pub(crate) fn with_at(&self, at: usize, runner: Arc<Runner>) -> Self {
        let mut runners = Vec::with_capacity(self.runners.len() + 1);
        runners.extend_from_slice(&self.runners[..at]);
        runners.push(runner);
        runners.extend_from_slice(&self.runners[at..]);
        self.next(runners)
    }

    /// The number of the next turn when all have the same.
    #[inline]
    pub(crate) fn next_turn(&self) -> u64 {
        self.round.next()
    }

    /// The place whose turn it is when each has turns in proportion to its weight; `None` if nobody has a
    /// weight.
    #[inline]
    pub(crate) fn next_by_weight(&self) -> Option<usize> {
        let turns = self.turns.get_or_init(|| Turns::of(&self.runners));
        turns.whose(self.weighted_round.next())
    }

    /// How fast these runners are on the whole, as of a second ago at most.
    pub(crate) fn typical(&self, now: Instant) -> Typical {
        self.typical.get(now, &self.runners)
    }

    /// The words of the board that belong to these runners.
    pub(crate) fn loads(&self) -> &Loads {
        self.loads.get_or_init(|| Loads::of(&self.runners))
    }
}

impl Deref for RunnerSet {
    type Target = [Arc<Runner>];

    fn deref(&self) -> &[Arc<Runner>] {
        &self.runners
    }
}

impl<'s> IntoIterator for &'s RunnerSet {
    type Item = &'s Arc<Runner>;
    type IntoIter = std::slice::Iter<'s, Arc<Runner>>;

    fn into_iter(self) -> Self::IntoIter {
        self.runners.iter()
    }
}

impl Default for RunnerSet {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Clone for RunnerSet {
    fn clone(&self) -> Self {
        // The clone is about to change.
        self.next(self.runners.clone())
    }
}

impl fmt::Debug for RunnerSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.runners.iter().map(|runner| runner.key())).finish()
    }
}

/// Where on the board the runners of a set are.
pub(crate) struct Loads {
    rows: Vec<Row>,
    runners: Vec<Arc<Live>>,
    board: Option<Arc<Board>>,
    made: Instant,
    /// When reports were last looked through for stale ones, in seconds since `made`.
    swept: AtomicU64,
}

/// The runners of a set whose words are in one block.
struct Row {
    block: Arc<Block>,
    /// Place in the block, place in the set.
    seats: Vec<(u16, u32)>,
}

impl Loads {
    fn of(runners: &[Arc<Runner>]) -> Self {
        let mut rows: Vec<(u32, Row)> = Vec::new();
        for (at, runner) in runners.iter().enumerate() {
            let (block, number, place) = runner.live().seat().place();
            let Ok(at) = u32::try_from(at) else { break };
            match rows.iter_mut().find(|(row, _)| *row == number) {
                Some((_, row)) => row.seats.push((place, at)),
                None => rows.push((number, Row { block: block.clone(), seats: vec![(place, at)] })),
            }
        }
        for (_, row) in &mut rows {
            row.seats.sort_unstable();
        }
        Self {
            rows: rows.into_iter().map(|(_, row)| row).collect(),
            runners: runners.iter().map(|runner| runner.shared_live()).collect(),
            board: runners.first().map(|runner| runner.live().seat().board().clone()),
            made: Instant::now(),
            swept: AtomicU64::new(0),
        }
    }

    /// Takes stale reports off the board, at most once a second: a word does not age by itself.
    fn sweep(&self, now: Instant) {
        let second = now.saturating_duration_since(self.made).as_secs();
        let swept = self.swept.load(Ordering::Relaxed);
        let is_mine = second > swept
            && self.swept.compare_exchange(swept, second, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_mine {
            self.runners.iter().for_each(|live| live.expire_report(now));
        }
    }

    /// A runner with the smallest share of slots in use, by its place in the set, drawn evenly from all that
    /// have it. `None` if none takes anything. Those that may have to be spared are asked about.
    pub(crate) fn least(&self, now: Instant, is_willing: impl Fn(&Live) -> bool) -> Option<usize> {
        self.sweep(now);
        let mut least = u64::MAX;
        let mut ties = 0_u32;
        let mut first = 0;
        for (number, row) in self.rows.iter().enumerate() {
            let (in_row, count) = row.least();
            if in_row < least {
                (least, ties, first) = (in_row, count, number);
            } else if in_row == least {
                ties += count;
            }
        }
        if least & (CLOSED | RELUCTANT) != 0 {
            (least, ties) = (u64::MAX, 0);
        }
        if self.board.as_ref().is_some_and(|board| board.has_reluctant())
            && let Some(at) = self.least_spared(least, ties, is_willing)
        {
            return Some(at);
        }
        if ties == 0 {
            return None;
        }
        // Found again by a second look, which ends early: cheaper than drawing at every tie.
        let mut skip = if ties > 1 { fastrand::u32(..ties) } else { 0 };
        let mut found = None;
        'rows: for row in &self.rows[first..] {
            for &(place, at) in &row.seats {
                if row.word(place) != least {
                    continue;
                }
                found = Some(at);
                if skip == 0 {
                    break 'rows;
                }
                skip -= 1;
            }
        }
        // All of them may have changed meanwhile; then the caller looks again.
        found.map(|at| at as usize)
    }

    /// The same among those that may have to be spared, if one of them does better than the others' `least`,
    /// which `ties` of them have.
    #[cold]
    fn least_spared(
        &self,
        mut least: u64,
        mut ties: u32,
        is_willing: impl Fn(&Live) -> bool,
    ) -> Option<usize> {
        let mut found = None;
        for row in &self.rows {
            for &(place, at) in &row.seats {
                let word = row.raw(place);
                if word & (CLOSED | RELUCTANT) != RELUCTANT {
                    continue;
                }
                let share = comparable(word & !RELUCTANT);
                if share > least || !self.runners.get(at as usize).is_some_and(|live| is_willing(live)) {
                    continue;
                }
                ties = if share < least { 1 } else { ties.saturating_add(1) };
                if share < least || fastrand::u32(..ties) == 0 {
                    (least, found) = (share, Some(at as usize));
                }
            }
        }
        found
    }
}

impl Row {
    #[inline]
    fn raw(&self, place: u16) -> u64 {
        self.block[usize::from(place) % self.block.len()].load(Ordering::Relaxed)
    }

    #[inline]
    fn word(&self, place: u16) -> u64 {
        comparable(self.raw(place))
    }

    fn least(&self) -> (u64, u32) {
        let mut least = u64::MAX;
        let mut ties = 0;
        for &(place, _) in &self.seats {
            let word = self.word(place);
            ties = if word < least { 1 } else { ties + u32::from(word == least) };
            least = least.min(word);
        }
        (least, ties)
    }
}
