//! Runners among whom one is chosen, with what is prepared when the set changes so that a choice is quick.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use super::Runner;
use super::board::ASSUMED_SLOTS;
use super::loads::Loads;
use super::turns::{Tick, Turns};
use super::typical::{self, Typical};
use crate::balance::MeanShare;
use crate::balance::ring::Ring;
use crate::features::Features;
use crate::names::ModelId;

/// Runners in a row. Never changes. What strategies need to find one of them quickly is made at the first
/// use, once for each change of the fleet, and shared by all requests until the next.
pub struct RunnerSet {
    runners: Vec<Arc<Runner>>,
    /// If the set is of those that know a model: its name, and where in each one's status it is.
    model: Option<ModelId>,
    model_at: Vec<u32>,
    loads: OnceLock<Loads>,
    turns: OnceLock<Turns>,
    /// Those who go round go on where they are when the set changes.
    round: Tick,
    weighted_round: Tick,
    typical: typical::Cached,
    ring: OnceLock<Ring>,
    lacking: OnceLock<Features>,
    mean: CachedMean,
    made: Instant,
    /// When reports were last looked through for stale ones, in seconds since `made`.
    swept: AtomicU64,
}

impl RunnerSet {
    /// A set of these runners.
    pub fn new(runners: Vec<Arc<Runner>>) -> Self {
        Self {
            runners,
            model: None,
            model_at: Vec::new(),
            loads: OnceLock::new(),
            turns: OnceLock::new(),
            round: Tick::default(),
            weighted_round: Tick::default(),
            typical: typical::Cached::new(),
            ring: OnceLock::new(),
            lacking: OnceLock::new(),
            mean: CachedMean::default(),
            made: Instant::now(),
            swept: AtomicU64::new(0),
        }
    }

    /// An empty set of runners that know a model.
    pub(crate) fn knowing(model: &ModelId) -> Self {
        Self { model: Some(model.clone()), ..Self::default() }
    }

    /// The set that comes after this one.
    fn next(&self, runners: Vec<Arc<Runner>>, model_at: Vec<u32>) -> Self {
        Self {
            model: self.model.clone(),
            model_at,
            round: self.round.clone(),
            weighted_round: self.weighted_round.clone(),
            // A fleet that changes more than once a second has stale reports, too.
            made: self.made,
            swept: AtomicU64::new(self.swept.load(Ordering::Relaxed)),
            ..Self::new(runners)
        }
    }

    /// Found by its address: of ten thousand, each one's name would have to be fetched from elsewhere.
    pub(crate) fn without(&self, runner: &Arc<Runner>) -> Self {
        let mut next = self.clone();
        if let Some(at) = self.runners.iter().position(|other| Arc::ptr_eq(other, runner)) {
            next.runners.remove(at);
            if at < next.model_at.len() {
                next.model_at.remove(at);
            }
        }
        next
    }

    pub(crate) fn with(&self, runner: &Arc<Runner>) -> Self {
        self.with_at(self.runners.len(), runner.clone())
    }

    pub(crate) fn with_at(&self, at: usize, runner: Arc<Runner>) -> Self {
        let mut model_at = self.model_at.clone();
        let place = self.model.as_ref().and_then(|model| runner.model_at(model.as_str()));
        // A runner without the model cannot be here; if it were, nobody after it would have a place.
        if let Some(place) = place.and_then(|place| u32::try_from(place).ok())
            && at <= model_at.len()
        {
            model_at.insert(at, place);
        } else {
            model_at.truncate(at);
        }
        let mut runners = Vec::with_capacity(self.runners.len() + 1);
        runners.extend_from_slice(&self.runners[..at]);
        runners.push(runner);
        runners.extend_from_slice(&self.runners[at..]);
        self.next(runners, model_at)
    }

    /// Where in a runner's status the model of that name is, if the set is of those that know it.
    #[inline]
    pub(crate) fn model_at(&self, at: usize, name: &ModelId) -> Option<u32> {
        self.model_at.get(at).copied().filter(|_| self.model.as_ref() == Some(name))
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

    /// These runners on a ring, each with a share of it by its slots.
    pub(crate) fn ring(&self) -> &Ring {
        let weight = |runner: &Arc<Runner>| runner.spec().slots.map_or(ASSUMED_SLOTS, NonZeroU32::get);
        self.ring.get_or_init(|| {
            Ring::new(self.runners.iter().map(|runner| (runner.id().as_str(), weight(runner))))
        })
    }

    /// What at least one of these runners lacks.
    #[inline]
    pub(crate) fn lacking(&self) -> Features {
        let all = || self.runners.iter().map(|runner| runner.spec().lacks).fold(Features::NONE, Features::or);
        *self.lacking.get_or_init(all)
    }

    /// How much of the slots of those who take requests our own use: counted for small sets, and at most a
    /// millisecond old for larger ones. Who drains or has to be spared has no share in it: the others bear the load.
    #[inline]
    pub(crate) fn mean_share(&self, now: Instant) -> MeanShare {
        if self.runners.len() <= CachedMean::COUNTED {
            self.loads().mean_share()
        } else {
            self.mean.get(now, self.loads())
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
            self.runners.iter().for_each(|runner| runner.live().expire_report(now));
        }
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
        self.next(self.runners.clone(), self.model_at.clone())
    }
}

impl fmt::Debug for RunnerSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.runners.iter().map(|runner| runner.key())).finish()
    }
}

/// The mean of a large set, counted anew when it is a millisecond old.
#[derive(Debug)]
struct CachedMean {
    /// Requests in the upper half, slots in the lower; 0: not counted yet.
    share: AtomicU64,
    /// In ms since `born`.
    at: AtomicU64,
    born: Instant,
}

impl CachedMean {
    /// So many runners are counted each time: that takes less than it would to find out how old a count is.
    const COUNTED: usize = 64;

    #[inline]
    fn get(&self, now: Instant, loads: &Loads) -> MeanShare {
        let now = now.saturating_duration_since(self.born).as_millis() as u64;
        let counted = self.at.load(Ordering::Relaxed);
        // One of those who find it old counts; the others take what there is, but for the first time.
        let is_mine = counted != now
            && self.at.compare_exchange(counted, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let known = self.share.load(Ordering::Relaxed);
        if is_mine || known == 0 {
            let mean = loads.mean_share();
            self.share.store(mean.in_flight << 32 | mean.slots & u64::from(u32::MAX), Ordering::Relaxed);
            return mean;
        }
        MeanShare { in_flight: known >> 32, slots: known & u64::from(u32::MAX) }
    }
}

impl Default for CachedMean {
    fn default() -> Self {
        Self { share: AtomicU64::new(0), at: AtomicU64::new(0), born: Instant::now() }
    }
}
