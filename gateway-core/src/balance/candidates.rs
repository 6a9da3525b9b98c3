use std::cell::Cell;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::health::{BreakerState, HealthPolicy, Reluctance};
use crate::names::RunnerKey;
use crate::router::{Pool, Refusal, Requirements, Router};
use crate::runner::{ASSUMED_SLOTS, Least, Live, Look, Reservation, Runner, RunnerSet, Typical};

/// A runner on which the request was tried in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Which one.
    pub runner: RunnerKey,
    /// Whether it may have seen the request. If it did, it does not get it again, not even when it has
    /// registered anew: what crashed it once would crash it twice. If it did not, a new registration is
    /// worth a try.
    pub sent: bool,
}

impl Tried {
    fn excludes(&self, key: &RunnerKey) -> bool {
        self.runner.id == key.id && (self.sent || self.runner.generation == key.generation)
    }
}

/// The runners among which a [`Balancer`](crate::Balancer) chooses. Whether one of them is eligible is
/// found out when it is looked at, so that a strategy which looks at two of ten thousand pays for two.
pub struct Candidates<'a> {
    pool: Pool<'a>,
    router: &'a dyn Router,
    requirements: &'a Requirements,
    tried: &'a [Tried],
    health: &'a HealthPolicy,
    /// Drawn when it is first needed, and then the same for the whole choice, so that a runner that warms up
    /// is a candidate throughout or not at all.
    chance: Cell<Option<f64>>,
    /// How reluctant a runner may be and still be eligible.
    leniency: Reluctance,
    /// Whether somebody was passed over for being too reluctant.
    spared: Cell<bool>,
    /// The clock, read when it is first needed unless somebody has read it before.
    now: Cell<Option<Instant>>,
}

impl<'a> Candidates<'a> {
    /// Candidates for a request: the router's pool, less those on which it was `tried` already, and less
    /// those that are to be spared (see [`Candidates::spared`]).
    pub fn new(
        pool: Pool<'a>,
        router: &'a dyn Router,
        requirements: &'a Requirements,
        tried: &'a [Tried],
    ) -> Self {
        Self {
            pool,
            router,
            requirements,
            tried,
            health: &HealthPolicy::DEFAULT,
            chance: Cell::new(None),
            leniency: Reluctance::None,
            spared: Cell::new(false),
            now: Cell::new(None),
        }
    }

    /// With the time that whoever asks has just read: reading the clock is a fifth of what a quick choice costs.
    pub fn at(self, now: Instant) -> Self {
        Self { now: Cell::new(Some(now)), ..self }
    }

    /// The time of the choice.
    #[inline]
    pub fn now(&self) -> Instant {
        let now = self.now.get().unwrap_or_else(Instant::now);
        self.now.set(Some(now));
        now
    }

    /// Under another policy of who is to be spared than [`HealthPolicy::DEFAULT`].
    pub fn under(self, health: &'a HealthPolicy) -> Self {
        Self { health, ..self }
    }

    /// With those that are to be spared no more than this.
    pub(crate) fn lenient(self, leniency: Reluctance) -> Self {
        Self { leniency, ..self }
    }

    /// Whether a runner was passed over because it should be spared for now: it warms up, does much worse than
    /// its peers, could not be reached a moment ago, or asked for a pause. When nobody else can be picked, the dispatcher asks
    /// again with these among the candidates.
    pub fn spared(&self) -> bool {
        self.spared.get()
    }

    /// What the request needs.
    pub fn requirements(&self) -> &'a Requirements {
        self.requirements
    }

    /// How many places there are to look at. Not all need hold an eligible runner.
    pub fn len(&self) -> usize {
        self.pool.runners().len()
    }

    /// Whether there is no place to look at.
    pub fn is_empty(&self) -> bool {
        self.pool.runners().is_empty()
    }

    /// The set that the places are, if they are one: what strategies prepare for it once serves all requests
    /// until the fleet changes.
    pub fn set(&self) -> Option<&'a RunnerSet> {
        self.pool.set()
    }

    /// The runner at a place, if it is eligible: acceptable to the router, available, with the resources that are
    /// needed free, not tried yet. It may still be full.
    #[inline]
    pub fn get(&self, at: usize) -> Option<&'a Arc<Runner>> {
        self.pool.runners().get(at).filter(|runner| self.is_eligible(runner))
    }

    /// Every eligible runner with its place.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &'a Arc<Runner>)> + '_ {
        self.pool.runners().iter().enumerate().filter(|(_, runner)| self.is_eligible(runner))
    }

    /// Reserves the runner at a place, if it is eligible and has room for the request. See
    /// [`Runner::try_reserve_for`].
    #[inline]
    pub fn try_reserve(&self, at: usize) -> Option<Reservation> {
        let runner = self.get(at)?;
        match self.pool.set().and_then(|set| set.model_at(at, self.requirements.model.as_ref()?)) {
            Some(model) => runner.try_reserve_with(self.requirements, Some(model)),
            None => runner.try_reserve_for(self.requirements),
        }
    }

    /// A runner with the smallest share of its slots in use, if that can be told without looking at each.
    pub(crate) fn least(&self) -> Least {
        match self.indexed() {
            Some(set) => {
                set.sweep(self.now());
                set.loads().least(set, |live| self.is_willing(live))
            }
            None => Least::Unclear,
        }
    }

    /// Makes sure that [`Candidates::look`] sees no report that has grown stale. Once for each choice.
    #[inline]
    pub(crate) fn sweep(&self) {
        if let Some(set) = self.pool.set() {
            set.sweep(self.now());
        }
    }

    /// What is on the runner at a place, if it is eligible and not full, as far as that can be told by the board
    /// alone: whether it can be reserved after all is found out then. What a choice that looks at a few of many
    /// needs.
    #[inline]
    pub(crate) fn look(&self, at: usize) -> Option<Look> {
        if let Some(set) = self.indexed() {
            let look = set.loads().look(at)?;
            return (look.is_ordinary() || self.get(at).is_some()).then_some(look);
        }
        let runner = self.get(at)?;
        if self.pool.set().is_none() {
            runner.live().expire_report(self.now());
        }
        runner.look()
    }

    /// The peak of a runner's time to first byte in seconds, or `None` if nothing was measured.
    #[inline]
    pub(crate) fn peak_s(&self, at: usize) -> Option<f32> {
        match self.indexed() {
            Some(set) => set.loads().peak_s(at, self.now()),
            None => self.pool.runners().get(at)?.peak_first_byte_s(self.now()),
        }
    }

    /// A runner's slots, assumed if it does not say.
    #[inline]
    pub(crate) fn slots(&self, at: usize) -> u32 {
        match self.indexed() {
            Some(set) => set.loads().slots(at),
            None => {
                let slots = self.pool.runners().get(at).and_then(|runner| runner.spec().slots);
                slots.map_or(ASSUMED_SLOTS, NonZeroU32::get)
            }
        }
    }

    /// The place of the runner with this [number](Runner::number), if it is prepared for being found.
    pub(crate) fn place_of(&self, number: u32) -> Option<usize> {
        self.pool.set()?.loads().place_of(number)
    }

    /// As [`Candidates::iter`], but those of whom the board tells that they are full need not be among them.
    pub(crate) fn open(&self) -> impl Iterator<Item = (usize, &'a Arc<Runner>)> + '_ {
        let loads = self.pool.set().map(RunnerSet::loads);
        let has_room = move |at| loads.is_none_or(|loads| loads.has_room(at));
        let runners = self.pool.runners().iter().enumerate();
        runners.filter(move |(at, runner)| has_room(*at) && self.is_eligible(runner))
    }

    /// The set, if its board tells who is eligible: then nothing but load and health matters.
    #[inline]
    fn indexed(&self) -> Option<&'a RunnerSet> {
        let nothing_else = self.pool.is_exact() && self.tried.is_empty();
        self.pool.set().filter(|_| nothing_else)
    }

    /// Whether somebody could serve the request if only it were less busy: then waiting makes sense. One
    /// whose breaker is half-open is busy with its probes; one whose breaker is open is not busy.
    pub(crate) fn has_busy(&self) -> bool {
        let now = Instant::now();
        self.pool.runners().iter().any(|runner| {
            let state = || runner.standing(now, self.health).breaker;
            self.fits(runner) && !matches!(state(), BreakerState::Open { .. })
        })
    }

    /// How long it takes until an open breaker lets somebody try a runner that could serve the request; `None`
    /// if no breaker is in the way. No bell rings then: whoever waits for it needs a timer.
    pub(crate) fn opens_in(&self) -> Option<Duration> {
        let now = Instant::now();
        let open =
            self.pool.runners().iter().filter_map(|runner| match runner.standing(now, self.health).breaker {
                BreakerState::Open { until, .. } if self.fits(runner) => Some(until - now),
                _ => None,
            });
        open.min()
    }

    /// How fast they are on the whole.
    pub(crate) fn typical(&self, now: Instant) -> Typical {
        /// Of runners for whom nothing is prepared, so many are looked at: enough for a mean.
        const SAMPLE: usize = 64;
        match self.pool.set() {
            Some(set) => set.typical(now),
            None => Typical::of(self.pool.runners().iter().take(SAMPLE), now),
        }
    }

    /// Why the runner cannot be reserved now, or `None` if it can.
    pub fn refusal(&self, runner: &Runner) -> Option<Refusal> {
        if let Err(refusal) = self.router.verdict(self.requirements, runner) {
            return Some(refusal);
        }
        if self.was_tried(runner.key()) {
            return Some(Refusal::AlreadyTried);
        }
        if !runner.is_available() {
            return Some(Refusal::Draining);
        }
        match runner.standing(Instant::now(), self.health).breaker {
            BreakerState::Open { .. } => return Some(Refusal::CircuitOpen),
            BreakerState::HalfOpen { probing, places, .. } if probing >= places => {
                return Some(Refusal::Probing);
            }
            BreakerState::HalfOpen { .. } | BreakerState::Closed => {}
        }
        if runner.load().is_full() {
            return Some(Refusal::Full);
        }
        (!self.has_resources(runner)).then_some(Refusal::ResourcesTaken)
    }

    #[inline]
    pub(crate) fn was_tried(&self, key: &RunnerKey) -> bool {
        self.tried.iter().any(|tried| tried.excludes(key))
    }

    #[inline]
    fn is_eligible(&self, runner: &Runner) -> bool {
        self.fits(runner)
            && (runner.is_ordinary() || self.is_willing(runner.live()))
            && self.has_resources(runner)
    }

    #[inline]
    fn has_resources(&self, runner: &Runner) -> bool {
        self.requirements.resources.as_ref().is_none_or(|need| runner.has_free(need))
    }

    #[inline]
    fn fits(&self, runner: &Runner) -> bool {
        runner.is_available()
            && !self.was_tried(runner.key())
            && (self.pool.is_exact() || self.router.accepts(self.requirements, runner))
    }

    #[inline]
    fn is_willing(&self, live: &Live) -> bool {
        live.conduct().is_ordinary() || self.is_willing_still(live)
    }

    #[cold]
    fn is_willing_still(&self, live: &Live) -> bool {
        let chance = self.chance.get().unwrap_or_else(fastrand::f64);
        self.chance.set(Some(chance));
        match live.reluctance(chance, self.health) {
            Some(reluctance) if reluctance <= self.leniency => true,
            Some(_) => {
                self.spared.set(true);
                false
            }
            // Its breaker lets nobody in, however much the request is in need.
            None => false,
        }
    }
}
