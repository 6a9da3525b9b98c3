use std::sync::Arc;

use crate::names::RunnerKey;
use crate::router::{Pool, Refusal, Requirements, Router};
use crate::runner::{Reservation, Runner};

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
#[derive(Clone, Copy)]
pub struct Candidates<'a> {
    pool: Pool<'a>,
    router: &'a dyn Router,
    requirements: &'a Requirements,
    tried: &'a [Tried],
}

impl<'a> Candidates<'a> {
    /// Candidates for a request: the router's pool, less those on which it was `tried` already.
    pub fn new(
        pool: Pool<'a>,
        router: &'a dyn Router,
        requirements: &'a Requirements,
        tried: &'a [Tried],
    ) -> Self {
        Self { pool, router, requirements, tried }
    }

    /// How many places there are to look at. Not all need hold an eligible runner.
    pub fn len(&self) -> usize {
        self.pool.runners.len()
    }

    /// Whether there is no place to look at.
    pub fn is_empty(&self) -> bool {
        self.pool.runners.is_empty()
    }

    /// The runner at a place, if it is eligible: acceptable to the router, available, not tried yet.
    /// It may still be full.
    #[inline]
    pub fn get(&self, at: usize) -> Option<&'a Arc<Runner>> {
        self.pool.runners.get(at).filter(|runner| self.is_eligible(runner))
    }

    /// Every eligible runner with its place.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &'a Arc<Runner>)> + '_ {
        self.pool.runners.iter().enumerate().filter(|(_, runner)| self.is_eligible(runner))
    }

    /// Reserves the runner at a place, if it is eligible and has a slot free. See
    /// [`Runner::try_reserve`].
    pub fn try_reserve(&self, at: usize) -> Option<Reservation> {
        self.get(at)?.try_reserve()
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
            && (self.pool.exact || self.router.verdict(self.requirements, runner).is_ok())
    }
}
