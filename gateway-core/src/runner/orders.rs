//! What this gateway has ordered of a runner's models, and how a model shows while the runner's own word on
//! it is old.

use std::sync::{Arc, Weak};

use tokio::time::Instant;

use super::usage::Usage;
use super::{Model, ModelState, Runner, RunnerStatus};
use crate::names::ModelId;

/// What the gateway does to a model on a runner, or has learnt of it. It counts beside what the runner says
/// of itself: a heartbeat that was on its way when a model was told to unload must not bring it back.
///
/// Models that have the same name on the runner (see [`Model::local_name`]) are one model and change
/// together.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelChange {
    /// It is about to be told to load. Shows as [`ModelState::Loading`], with the progress that the runner
    /// tells, until the runner says that it is loaded or another change ends it.
    Loading,
    /// It is about to be told to unload. Refused if a request uses the model. From this moment on no request
    /// can reserve the runner for it, whatever snapshot it picked from. Shows as [`ModelState::Unloading`],
    /// whatever the runner says, until another change ends it.
    Unloading,
    /// The same also while requests use the model: those go on as long as the runner lets them.
    ForcedUnloading,
    /// The order has ended, and this is known: it shows until the runner says how it is. Only
    /// [`ModelState::Failed`] stays for longer: until the model is loaded, or told to load, again.
    Ended(ModelState),
    /// The order has ended, and what the runner says holds.
    AsReported,
    /// The order has ended and nobody knows how. An unload may then still be under way: the model shows as
    /// [`ModelState::Unloading`] until the runner says how it is. What the runner says of one that was to be
    /// loaded holds at once.
    Unknown,
}

/// One model of which more is known than the runner said.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    /// The name on the runner.
    local: ModelId,
    word: Word,
}

#[derive(Debug, Clone, PartialEq)]
enum Word {
    Loading,
    Unloading,
    /// May still be unloading.
    Unsure,
    /// Holds until it is loaded.
    Failed(Option<String>),
}

impl Order {
    /// Whether another order must not be given now.
    fn is_active(&self) -> bool {
        matches!(self.word, Word::Loading | Word::Unloading | Word::Unsure)
    }

    /// Whether it still holds after the runner has said `reported` of the model.
    fn outlives(&self, reported: Option<&ModelState>) -> bool {
        match &self.word {
            Word::Loading | Word::Unloading => true,
            Word::Unsure => false,
            Word::Failed(_) => {
                matches!(reported, Some(ModelState::Available | ModelState::Failed { .. }))
            }
        }
    }

    fn shows(&self, reported: &ModelState) -> ModelState {
        match &self.word {
            Word::Loading => match reported {
                ModelState::Loaded | ModelState::OnDemand | ModelState::Loading { .. } => reported.clone(),
                _ => ModelState::Loading { progress: None },
            },
            Word::Unloading | Word::Unsure => ModelState::Unloading,
            Word::Failed(message) => ModelState::Failed { message: message.clone() },
        }
    }
}

impl Runner {
    /// The same registration with another status: shares link and counters. `None` if nothing but its load
    /// is new.
    pub(crate) fn with_status(&self, mut status: RunnerStatus) -> Option<Self> {
        if self.orders.is_empty() && self.status.is_same_but_for_load(&status) {
            return None;
        }
        let reported: Vec<_> = status.models.iter().map(|model| model.state.clone()).collect();
        let mut orders = self.orders.clone();
        orders.retain(|order| {
            let is_meant = |model: &&Model| *model.local_name() == order.local;
            order.outlives(status.models.iter().find(is_meant).map(|model| &model.state))
        });
        apply(&orders, &reported, &mut status);
        let is_same =
            orders == self.orders && self.reported == reported && self.status.is_same_but_for_load(&status);
        (!is_same).then(|| self.successor(status, orders, reported))
    }

    /// The same registration after a change of a model that the gateway knows of. `None` if it cannot be
    /// made: the model is unknown, another order is under way, or it is to be unloaded and is in use.
    pub(crate) fn with_model_change(&self, name: &ModelId, change: &ModelChange) -> Option<Self> {
        let local = self.model(name.as_str())?.local_name().clone();
        let mut orders = self.orders.clone();
        let before = orders.iter().position(|order| order.local == local).map(|at| orders.swap_remove(at));
        let is_active = before.as_ref().is_some_and(Order::is_active);
        let word = match change {
            ModelChange::Loading | ModelChange::Unloading | ModelChange::ForcedUnloading if is_active => {
                return None;
            }
            ModelChange::Loading => Some(Word::Loading),
            ModelChange::Unloading => self.close_model(&local).then_some(Word::Unloading).map(Some)?,
            ModelChange::ForcedUnloading => {
                self.usages_of(&local).for_each(|usage| usage.latch().shut());
                Some(Word::Unloading)
            }
            ModelChange::Ended(ModelState::Failed { message }) => Some(Word::Failed(message.clone())),
            ModelChange::Ended(_) | ModelChange::AsReported => None,
            ModelChange::Unknown => {
                before.filter(|order| order.word == Word::Unloading).map(|_| Word::Unsure)
            }
        };
        orders.extend(word.map(|word| Order { local: local.clone(), word }));
        let mut reported = match self.reported.is_empty() {
            true => self.status.models.iter().map(|model| model.state.clone()).collect(),
            false => self.reported.clone(),
        };
        if let ModelChange::Ended(state) = change
            && !matches!(state, ModelState::Failed { .. })
        {
            // As good as the runner's word, and younger: the next order must not fall back on that.
            for (model, reported) in self.status.models.iter().zip(&mut reported) {
                if *model.local_name() == local {
                    reported.clone_from(state);
                }
            }
        }
        let mut status = self.status.clone();
        apply(&orders, &reported, &mut status);
        Some(self.successor(status, orders, reported))
    }

    /// The same as it would be with that model loaded. Not for a fleet: to ask a router what it would say.
    pub(crate) fn as_if_loaded(&self, name: &str) -> Option<Self> {
        let at = self.model_at(name)?;
        let mut status = self.status.clone();
        status.models[at].state = ModelState::Loaded;
        let (usage, past_usage) = (self.usage.clone(), self.past_usage.clone());
        Some(self.renewed(status, usage, past_usage, Vec::new(), Vec::new()))
    }

    /// Lets no request begin to use a model any more; `false` if one does, under whatever of its names. So
    /// does one that asked for no model in particular: it may be this that the engine answers it with.
    fn close_model(&self, local: &ModelId) -> bool {
        let mut closed: Vec<&Usage> = Vec::new();
        let mut free = true;
        for usage in self.usages_of(local) {
            free = usage.latch().close();
            if !free {
                break;
            }
            closed.push(usage);
        }
        // One that comes later asks for whatever the runner then has.
        free = free && !self.has_unnamed_requests();
        if !free {
            closed.iter().for_each(|usage| usage.latch().open());
        }
        free
    }

    /// Whether there are requests on it that asked for no model in particular.
    pub(crate) fn has_unnamed_requests(&self) -> bool {
        self.live.unnamed().count() > 0
    }

    /// One for each of the canonical names that stand for one local name.
    pub(super) fn usages_of<'r>(&'r self, local: &'r ModelId) -> impl Iterator<Item = &'r Usage> {
        let models = self.status.models.iter().zip(&self.usage);
        models.filter(move |(model, _)| model.local_name() == local).map(|(_, usage)| &**usage)
    }

    fn successor(&self, status: RunnerStatus, orders: Vec<Order>, reported: Vec<ModelState>) -> Self {
        let mut usage: Vec<Arc<Usage>> = Vec::with_capacity(status.models.len());
        for model in &status.models {
            let before = self.status.models.iter().position(|old| old.id == model.id);
            let shared = match before {
                Some(at) => self.usage[at].clone(),
                None => self.past_usage(&model.id).unwrap_or_else(|| Arc::new(Usage::new())),
            };
            if before.is_none_or(|at| begins_anew(&self.status.models[at].state, &model.state)) {
                shared.touch(Instant::now());
            }
            // Only now, and not when an unload has ended: somebody who picked from a snapshot of the time
            // before it may still be about to reserve.
            if matches!(model.state, ModelState::Loaded | ModelState::OnDemand) {
                shared.latch().open();
            }
            usage.push(shared);
        }
        let mut past: Vec<_> =
            self.past_usage.iter().filter(|(_, usage)| usage.strong_count() > 0).cloned().collect();
        for (model, shared) in self.status.models.iter().zip(&self.usage) {
            if status.models.iter().all(|listed| listed.id != model.id) {
                past.push((model.id.clone(), Arc::downgrade(shared)));
            }
        }
        past.retain(|(id, _)| status.models.iter().all(|listed| listed.id != *id));
        let reported = if orders.is_empty() { Vec::new() } else { reported };
        self.renewed(status, usage, past, orders, reported)
    }

    /// The counter of a model that the runner did not list for a while, if somebody still uses it.
    fn past_usage(&self, id: &ModelId) -> Option<Arc<Usage>> {
        self.past_usage.iter().find(|(past, _)| past == id)?.1.upgrade()
    }

    fn renewed(
        &self,
        status: RunnerStatus,
        usage: Vec<Arc<Usage>>,
        past_usage: Vec<(ModelId, Weak<Usage>)>,
        orders: Vec<Order>,
        reported: Vec<ModelState>,
    ) -> Self {
        Self {
            hot: self.hot.under(&status, &usage),
            key: self.key.clone(),
            id_header: self.id_header.clone(),
            id_hash: self.id_hash,
            price: self.price,
            spec: self.spec.clone(),
            status,
            link: self.link.clone(),
            live: self.live.clone(),
            usage,
            past_usage,
            orders,
            reported,
        }
    }
}

/// Whether a model in this state is new to memory, or on its way there. One that was to be unloaded and stayed
/// is not.
fn begins_anew(before: &ModelState, now: &ModelState) -> bool {
    match now {
        ModelState::Loading { .. } => !matches!(before, ModelState::Loading { .. }),
        ModelState::Loaded => !matches!(before, ModelState::Loaded | ModelState::Unloading),
        _ => false,
    }
}

fn apply(orders: &[Order], reported: &[ModelState], status: &mut RunnerStatus) {
    for (model, reported) in status.models.iter_mut().zip(reported) {
        let order = orders.iter().find(|order| order.local == *model.local_name());
        model.state = order.map_or_else(|| reported.clone(), |order| order.shows(reported));
    }
}
