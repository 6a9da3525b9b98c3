use std::cell::Cell;
use std::sync::Arc;

use tokio::time::Instant;

use crate::names::RunnerKey;
use crate::router::{Pool, Refusal, Requirements, Router};
use crate::runner::{Least, Reluctance, Reservation, Runner, RunnerSet};

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
    /// How reluctant a runner may be and still be eligible.
    leniency: Reluctance,
    /// Whether somebody was passed over for being too reluctant.
    spared: Cell<bool>,
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
        Self { pool, router, requirements, tried, leniency: Reluctance::None, spared: Cell::new(false) }
    }

    /// With more of those that are to be spared; `None` if that makes no difference.
    pub(crate) fn more_lenient(self) -> Option<Self> {
        let leniency = match self.leniency {
            Reluctance::None => Reluctance::Some,
            Reluctance::Some => Reluctance::Much,
            Reluctance::Much => return None,
        };
        self.spared.replace(false).then_some(Self { leniency, ..self })
    }

    /// Whether a runner was passed over because it should be spared for now: it warms up, stands out among
    /// its peers, or could not be reached a moment ago. When nobody else can be picked, the dispatcher asks
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

    /// The runner at a place, if it is eligible: acceptable to the router, available, not tried yet.
    /// It may still be full.
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
        self.get(at)?.try_reserve_for(self.requirements)
    }

    /// The place of a runner with the smallest share of its slots in use, drawn evenly from all that have
    /// it, if that can be told without looking at each runner.
    pub(crate) fn least(&self, now: Instant) -> Option<usize> {
        if !self.pool.is_exact() {
            return None;
        }
        let Least { at, reluctant } = self.pool.set()?.loads().least(now)?;
        (!reluctant).then_some(at)
    }

    /// Whether anybody could take the request if only a slot were free.
    pub(crate) fn is_anybody_eligible(&self) -> bool {
        let eligible = |runner: &Runner| {
            runner.is_available()
                && !self.was_tried(runner.key())
                && (self.pool.is_exact() || self.router.verdict(self.requirements, runner).is_ok())
        };
        self.pool.runners().iter().any(|runner| eligible(runner))
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
        runner.load().is_full().then_some(Refusal::Full)
    }

    #[inline]
    fn was_tried(&self, key: &RunnerKey) -> bool {
        self.tried.iter().any(|tried| tried.excludes(key))
    }

    #[inline]
    fn is_eligible(&self, runner: &Runner) -> bool {
        runner.is_available()
            && !self.was_tried(runner.key())
            && (self.pool.is_exact() || self.router.verdict(self.requirements, runner).is_ok())
            && self.is_willing(runner)
    }

    #[inline]
    fn is_willing(&self, runner: &Runner) -> bool {
        let willing = runner.live().standing().reluctance() <= self.leniency;
        if !willing {
            self.spared.set(true);
        }
        willing
    }
}
