//! Whether a runner has room for one more model, and who would have to go for it.

use tokio::time::Instant;

use super::policy::LifecyclePolicy;
use super::state::{Act, State};
use super::wanted::Wanted;
use crate::names::ModelId;
use crate::runner::{Load, Model, ModelState, Runner};

/// Room that there is, or that can be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Whether the memory is known to be enough.
    pub(super) known: bool,
    /// Who has to be evicted, least recently used first.
    pub(super) victims: Vec<ModelId>,
}

/// Why there is no room.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// Who would have to go is in use.
    Occupied,
    /// Even if nothing were in use there would be none.
    Never,
}

/// What a resource report counts memory in.
const BYTES_PER_GB: f64 = 1e9;

/// A look at one runner after the other.
pub(super) struct Survey<'a> {
    pub(super) policy: &'a LifecyclePolicy,
    pub(super) state: &'a State,
    pub(super) wanted: &'a Wanted,
    pub(super) now: Instant,
}

impl Survey<'_> {
    pub(super) fn room(&self, runner: &Runner, wanted: &Model) -> Result<Room, NoRoom> {
        let in_memory = in_memory(runner, wanted.local_name());
        let limit = self.policy.limit_of(runner.spec());
        // So many have to go for the limit's sake.
        let over = limit.map_or(0, |limit| (in_memory.len() + 1).saturating_sub(limit));
        let need = wanted.size_bytes.map(|bytes| self.bytes(bytes));
        let free = runner.available_resources().map(|free| free.memory_gb * BYTES_PER_GB);
        let known = need.is_some() && free.is_some();
        let mut missing = need.zip(free).map_or(0.0, |(need, free)| (need - free).max(0.0));
        if over == 0 && missing <= 0.0 {
            return Ok(Room { known, victims: Vec::new() });
        }
        let total = runner.status().resources.total.map(|total| total.memory_gb * BYTES_PER_GB);
        let is_too_big = need.zip(total).is_some_and(|(need, total)| need > total);
        let record = self.state.record(runner.key());
        if is_too_big || record.is_some_and(|record| record.cannot_unload) {
            return Err(NoRoom::Never);
        }

        let (mut idle, mut movable) = (Vec::new(), Vec::new());
        for model in in_memory {
            if self.policy.pinned.contains(&model.id) {
                continue;
            }
            movable.push(model);
            if let Some(last_used) = self.idle_since(runner, model) {
                idle.push((last_used, model));
            }
        }
        idle.sort_by_key(|(last_used, _)| *last_used);
        let mut victims = Vec::new();
        let mut of_unknown_size = Vec::new();
        for (_, model) in idle {
            if victims.len() < over || (missing > 0.0 && model.size_bytes.is_some()) {
                missing -= model.size_bytes.map_or(0.0, |bytes| self.bytes(bytes));
                victims.push(model.id.clone());
            } else if missing > 0.0 {
                of_unknown_size.push(model.id.clone());
            }
        }
        if victims.len() >= over && missing <= 0.0 {
            return Ok(Room { known, victims });
        }
        if victims.len() >= over && !of_unknown_size.is_empty() {
            victims.extend(of_unknown_size);
            return Ok(Room { known: false, victims });
        }
        let all =
            movable.iter().map(|model| model.size_bytes.map_or(f64::INFINITY, |bytes| self.bytes(bytes)));
        let need_in_all = need.zip(free).map_or(0.0, |(need, free)| (need - free).max(0.0));
        let could_be = movable.len() >= over && all.sum::<f64>() >= need_in_all;
        Err(if could_be { NoRoom::Occupied } else { NoRoom::Never })
    }

    /// Since when nothing has used a model, if nothing does or waits to and it may be unloaded. For a decision that is
    /// checked again when the model is closed.
    pub(super) fn idle_since(&self, runner: &Runner, model: &Model) -> Option<Instant> {
        let (in_flight, last_used) = runner.model_usage(model.id.as_str())?;
        let load = runner.load_at(self.now);
        // Nobody knows which models the requests use that others have sent.
        let is_foreign = load.foreign.is_some_and(|foreign| foreign > 0)
            && load.report_age.is_some_and(|age| age < Load::STALE);
        let is_free = model.state == ModelState::Loaded
            && in_flight == 0
            && !is_foreign
            && !runner.has_unnamed_requests()
            && !self.state.is_held(runner.key(), model.local_name())
            && self.spared_until(runner, model, Act::Unload).is_none()
            && !self.wanted.is_wanted(runner, model);
        is_free.then_some(last_used)
    }

    pub(super) fn spared_until(&self, runner: &Runner, model: &Model, act: Act) -> Option<Instant> {
        self.state.record(runner.key())?.spared_until(&model.id, act, self.now)
    }

    fn bytes(&self, on_disk: u64) -> f64 {
        on_disk as f64 * self.policy.memory_factor
    }
}

/// What takes memory besides the one that is wanted, each once whatever its names.
fn in_memory<'r>(runner: &'r Runner, wanted: &ModelId) -> Vec<&'r Model> {
    let mut found: Vec<&Model> = Vec::new();
    for model in &runner.status().models {
        let is_there =
            matches!(model.state, ModelState::Loaded | ModelState::Loading { .. } | ModelState::Unloading);
        let is_news = model.local_name() != wanted
            && found.iter().all(|other| other.local_name() != model.local_name());
        if is_there && is_news {
            found.push(model);
        }
    }
    found
}
