//! One look at the fleet: who could serve, and a reservation on one of them.

use std::sync::Arc;

use tokio::time::Instant;

use super::plan::{Plan, Wish};
use crate::balance::{Balancer, Candidates, Tried};
use crate::fleet::Fleet;
use crate::health::{HealthPolicy, Reluctance};
use crate::registry::Registry;
use crate::router::{Pool, Requirements, Router};
use crate::runner::{ModelState, Reservation, Runner, RunnerSet};

/// A runner for a request, and the model that it is to serve it with.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) reservation: Reservation,
    /// Which of the plan's wishes it grants: whether a fallback, and which in their order.
    pub(crate) wish: (bool, usize),
}

impl Choice {
    pub(super) fn wish<'p>(&self, plan: &'p Plan) -> Wish<'p> {
        let (fallback, at) = self.wish;
        // The plan is the one that the choice was made for.
        plan.wishes(fallback).nth(at).unwrap_or(plan.itself())
    }
}

/// Who is there, who could serve, and who of those does.
#[derive(Clone)]
pub(super) struct Chooser {
    pub(super) registry: Arc<dyn Registry>,
    pub(super) router: Arc<dyn Router>,
    pub(super) balancer: Arc<dyn Balancer>,
    /// Which of those are to be spared.
    pub(super) health: HealthPolicy,
}

/// Nobody could be picked; whether somebody was passed over who should be spared.
struct Spared(bool);

impl Chooser {
    pub(super) fn candidates<'c>(
        &'c self,
        pool: Pool<'c>,
        requirements: &'c Requirements,
        tried: &'c [Tried],
    ) -> Candidates<'c> {
        Candidates::new(pool, &*self.router, requirements, tried).under(&self.health)
    }

    /// Picks among those who could serve what the name stands for, or among the fallbacks. Better one that should
    /// be spared than nobody, but first everybody is asked who need not be spared.
    pub(super) fn choose(
        &self,
        plan: &Plan,
        tried: &[Tried],
        fallbacks: bool,
        now: Instant,
    ) -> Option<Choice> {
        let fleet = self.registry.fleet();
        for leniency in Reluctance::ALL {
            let mut spared = false;
            for (at, wish) in plan.wishes(fallbacks).enumerate() {
                let by_now = plan.by_now(&wish, now);
                let requirements = by_now.as_ref().unwrap_or(wish.requirements);
                match self.pick(requirements, tried, &fleet, now, leniency) {
                    Ok(reservation) => return Some(Choice { reservation, wish: (fallbacks, at) }),
                    Err(Spared(more)) => spared |= more,
                }
            }
            if !spared {
                break;
            }
        }
        None
    }

    fn pick(
        &self,
        requirements: &Requirements,
        tried: &[Tried],
        fleet: &Fleet,
        now: Instant,
        leniency: Reluctance,
    ) -> Result<Reservation, Spared> {
        let from = |pool: Pool<'_>| {
            let candidates = self.candidates(pool, requirements, tried).at(now).lenient(leniency);
            self.balancer.pick(requirements, &candidates).ok_or_else(|| Spared(candidates.spared()))
        };
        let spared = match from(self.router.pool(requirements, fleet)) {
            // Who has the model loaded and only warms up still goes before who would have to load it.
            Err(Spared(true)) if leniency == Reluctance::None => return Err(Spared(true)),
            Err(spared) => spared,
            picked => return picked,
        };
        match self.router.fallback(requirements, fleet) {
            Some(pool) => from(pool).map_err(|more| Spared(spared.0 || more.0)),
            None => Err(spared),
        }
    }

    /// Whether this runner can be reserved now for one of these wishes.
    pub(super) fn could<'p>(
        &self,
        mut wishes: impl Iterator<Item = Wish<'p>>,
        tried: &[Tried],
        runner: &Runner,
        fleet: &Fleet,
    ) -> bool {
        wishes.any(|wish| {
            let pool = self.router.pool(wish.requirements, fleet);
            self.candidates(pool, wish.requirements, tried).refusal(runner).is_none()
        })
    }

    /// Whether anybody can be reserved now for one of these wishes, whatever the balancer thinks of it.
    pub(super) fn could_anybody<'p>(
        &self,
        mut wishes: impl Iterator<Item = Wish<'p>>,
        tried: &[Tried],
    ) -> bool {
        let fleet = self.registry.fleet();
        wishes.any(|wish| {
            let any = |pool: Pool<'_>| {
                let candidates = self.candidates(pool, wish.requirements, tried);
                // The board first: mostly everybody is full, and a verdict costs a hundred times as much.
                let loads = pool.set().map(RunnerSet::loads);
                let has_room = |at| loads.is_none_or(|loads| loads.has_room(at));
                let mut runners = pool.runners().iter().enumerate();
                runners.any(|(at, runner)| has_room(at) && candidates.refusal(runner).is_none())
            };
            any(self.router.pool(wish.requirements, &fleet))
                || self.router.fallback(wish.requirements, &fleet).is_some_and(any)
        })
    }

    /// Whether somebody could serve one of these wishes if only there were a slot free.
    pub(super) fn is_anybody_eligible<'p>(
        &self,
        mut wishes: impl Iterator<Item = Wish<'p>>,
        tried: &[Tried],
    ) -> bool {
        let fleet = self.registry.fleet();
        wishes.any(|wish| {
            let any = |pool| self.candidates(pool, wish.requirements, tried).has_busy();
            any(self.router.pool(wish.requirements, &fleet))
                || self.router.fallback(wish.requirements, &fleet).is_some_and(any)
        })
    }

    /// Whether there is still somebody who could serve, or have one of the models loaded, though perhaps not now.
    pub(super) fn is_anybody_left(&self, plan: &Plan, tried: &[Tried]) -> bool {
        if self.is_anybody_eligible(plan.all_wishes(true), tried) {
            return true;
        }
        let fleet = self.registry.fleet();
        plan.wishes(false).any(|wish| {
            let Some(name) = wish.model() else { return false };
            let candidates = self.candidates(Pool::empty(), wish.requirements, tried);
            let could_load = |runner: &Runner| {
                let state = runner.model(name.as_str()).map(|model| &model.state);
                let is_there = matches!(state, None | Some(ModelState::Loaded | ModelState::OnDemand));
                !is_there && !candidates.was_tried(runner.key())
            };
            fleet
                .model(name.as_str())
                .is_some_and(|entry| entry.known().iter().any(|runner| could_load(runner)))
        })
    }
}
