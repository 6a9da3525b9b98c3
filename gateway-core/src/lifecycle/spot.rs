//! Where a model is best loaded.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::line::Line;
use super::policy::LifecyclePolicy;
use super::room::{NoRoom, Room, Survey};
use super::state::{Act, Ask, State};
use super::wanted::Wanted;
use crate::balance::Candidates;
use crate::fleet::Fleet;
use crate::health::{BreakerState, HealthPolicy};
use crate::names::{ModelId, RunnerKey};
use crate::router::{Pool, Refusal, Router};
use crate::runner::{ASSUMED_SLOTS, ModelState, Runner};

/// A runner that is to load a model.
pub(super) struct Spot {
    pub(super) runner: Arc<Runner>,
    /// The canonical name there.
    pub(super) model: ModelId,
    /// The runner's own.
    pub(super) local: ModelId,
    pub(super) victims: Vec<ModelId>,
}

pub(super) enum Found {
    Spot(Spot),
    /// Somebody loads it already, by another's order.
    Coming,
    /// Nobody now, but somebody as soon as something that is under way has ended.
    Later,
    Nobody,
}

/// One look at the fleet. What it decides is carried out with checks of its own: the fleet goes on changing.
pub(super) struct Look<'a> {
    pub(super) router: &'a dyn Router,
    pub(super) health: &'a HealthPolicy,
    pub(super) policy: &'a LifecyclePolicy,
    pub(super) state: &'a State,
    pub(super) wanted: &'a Wanted,
    pub(super) line: &'a Mutex<Line>,
    pub(super) fleet: &'a Fleet,
    pub(super) now: Instant,
}

/// Why a request does not get a runner that has its model loaded.
enum KeptFrom {
    /// It has failed there, and may be why: it must not go from runner to runner and have its model loaded on
    /// each.
    ForGood,
    /// The runner has failed others, and is tried again soon.
    ForNow,
}

/// What one runner is for a load, if it fits the request.
enum Stand {
    Free(Rank, Room),
    /// It loads the model already, by somebody else's order.
    Loading,
    Later,
    /// It failed at this a moment ago.
    Spared,
    No,
}

/// The smaller, the better: who has not failed at it; who is known to have the memory; who has to evict
/// least; who has fewest models; who has the smallest share of its slots in use; the rest is chance.
type Rank = (bool, bool, usize, usize, u64, u32);

impl Look<'_> {
    /// A runner whose breaker lets somebody try it within this time is waited for: as long as a breaker opens
    /// for at first ([`BreakerPolicy::OPEN_FOR`](crate::BreakerPolicy::OPEN_FOR) and its jitter), and sooner than most models are loaded. One that
    /// fails again is open for longer, and then the model is loaded elsewhere.
    const SOON: Duration = Duration::from_secs(6);

    pub(super) fn find(&self, ask: &Ask) -> Found {
        let Some(entry) = self.fleet.model(ask.model.as_str()) else { return Found::Nobody };
        let kept_from = self.kept_from(ask, entry.known());
        if matches!(kept_from, Some(KeptFrom::ForGood)) {
            return Found::Nobody;
        }
        let mut free = Vec::new();
        let mut later = false;
        let mut spared = 0;
        for runner in entry.known() {
            match self.stand(ask, runner) {
                Stand::Free(rank, room) => free.push((rank, room, runner)),
                // One load is enough, whoever ordered it.
                Stand::Loading if self.fits(ask, runner) => return Found::Coming,
                Stand::Later => later = later || self.fits(ask, runner),
                Stand::Spared => spared += 1,
                Stand::Loading | Stand::No => {}
            }
        }
        if spared >= self.policy.max_failed.max(1) {
            return Found::Nobody;
        }
        match self.best(ask, free, &mut later) {
            // Nothing is loaded or evicted for a fault that may have passed before the load has ended.
            Some(_) if kept_from.is_some() => Found::Coming,
            Some(spot) => Found::Spot(spot),
            None if later => Found::Later,
            None => Found::Nobody,
        }
    }

    /// Why the request does not get a runner that has the model, if that is no reason to load it elsewhere.
    fn kept_from(&self, ask: &Ask, known: &[Arc<Runner>]) -> Option<KeptFrom> {
        let mut soon = None;
        for runner in known {
            let has_it = runner
                .model(ask.model.as_str())
                .is_some_and(|model| matches!(model.state, ModelState::Loaded | ModelState::OnDemand));
            if !has_it || !runner.is_available() || !self.router.accepts(&ask.requirements, runner) {
                continue;
            }
            if ask.tried.iter().any(|tried| tried.sent && tried.runner.id == *runner.id()) {
                return Some(KeptFrom::ForGood);
            }
            match runner.standing(self.now, self.health).breaker {
                BreakerState::Open { until, .. } if until <= self.now + Self::SOON => {
                    soon = Some(KeptFrom::ForNow);
                }
                _ => {}
            }
        }
        soon
    }

    /// The same among a few runners, for one who has found nobody else.
    pub(super) fn find_on(&self, ask: &Ask, runners: &[RunnerKey]) -> Option<Spot> {
        let there = runners.iter().filter_map(|key| self.fleet.current(key));
        let free = there.filter_map(|runner| match self.stand(ask, runner) {
            Stand::Free(rank, room) => Some((rank, room, runner)),
            _ => None,
        });
        self.best(ask, free.collect(), &mut false)
    }

    fn best(&self, ask: &Ask, mut free: Vec<(Rank, Room, &Arc<Runner>)>, later: &mut bool) -> Option<Spot> {
        free.sort_by_key(|(rank, ..)| *rank);
        for (_, room, runner) in free {
            if !self.fits(ask, runner) {
                continue;
            }
            if self.is_spoken_for(ask, runner) {
                *later = true;
                continue;
            }
            if let Some(model) = runner.model(ask.model.as_str()) {
                let (model, local) = (model.id.clone(), model.local_name().clone());
                return Some(Spot { runner: runner.clone(), model, local, victims: room.victims });
            }
        }
        None
    }

    /// Whether the runner could serve the request if only the model were loaded.
    pub(super) fn fits(&self, ask: &Ask, runner: &Runner) -> bool {
        let Some(loaded) = runner.as_if_loaded(ask.model.as_str()) else { return false };
        let candidates = Candidates::new(Pool::empty(), self.router, &ask.requirements, &ask.tried);
        matches!(candidates.under(self.health).refusal(&loaded), None | Some(Refusal::Full))
    }

    fn stand(&self, ask: &Ask, runner: &Runner) -> Stand {
        let Some(model) = runner.model(ask.model.as_str()) else { return Stand::No };
        if !runner.is_available() {
            return Stand::No;
        }
        let has_failed = match &model.state {
            ModelState::Available => false,
            ModelState::Failed { .. } => true,
            ModelState::Loading { .. } => {
                let since = runner.model_usage(model.id.as_str()).map(|(_, since)| since);
                let is_stuck = since.is_some_and(|since| self.now - since >= self.policy.load_timeout);
                return if is_stuck { Stand::No } else { Stand::Loading };
            }
            ModelState::Unloading => return Stand::Later,
            ModelState::Loaded | ModelState::OnDemand => return Stand::No,
        };
        if self.state.record(runner.key()).is_some_and(|record| record.cannot_load) {
            return Stand::No;
        }
        let survey = Survey { policy: self.policy, state: self.state, wanted: self.wanted, now: self.now };
        if survey.spared_until(runner, model, Act::Load).is_some() {
            return Stand::Spared;
        }
        let room = match survey.room(runner, model) {
            Ok(room) => room,
            Err(NoRoom::Occupied) => return Stand::Later,
            Err(NoRoom::Never) => return Stand::No,
        };
        if self.state.busy.contains(runner.key()) {
            return Stand::Later;
        }
        let loaded = runner.status().models.iter().filter(|model| model.state == ModelState::Loaded).count();
        let load = runner.load_at(self.now);
        let slots = load.slots.map_or(ASSUMED_SLOTS, |slots| slots.get());
        let share = u64::from(load.estimate()) * 1_000_000 / u64::from(slots);
        let rank = (has_failed, !room.known, room.victims.len(), loaded, share, fastrand::u32(..));
        Stand::Free(rank, room)
    }

    /// Whether somebody who waits for room for longer, for another model, could have it here.
    fn is_spoken_for(&self, ask: &Ask, runner: &Arc<Runner>) -> bool {
        let older = self.line.lock().unwrap_or_else(PoisonError::into_inner).older(ask);
        older
            .iter()
            .any(|older| matches!(self.stand(older, runner), Stand::Free(..)) && self.fits(older, runner))
    }
}
