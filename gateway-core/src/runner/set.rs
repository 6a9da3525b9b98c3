//! Runners among whom one is chosen, with what is prepared when the set changes so that a choice is quick.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use super::Runner;
use super::loads::Loads;
use super::turns::{Tick, Turns};
use super::typical::{self, Typical};
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
    #[inline]
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
