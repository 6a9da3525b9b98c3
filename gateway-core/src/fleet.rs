//! An immutable snapshot of the runners there are.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::bell::Bell;
use crate::names::{ModelId, RunnerId, RunnerKey};
use crate::runner::{Model, ModelState, Place, Runner, RunnerSet};

/// The runners there are at one moment, indexed by model. Never changes; the [`Registry`](crate::Registry)
/// makes a new one for every change, so that readers need no lock.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    version: u64,
    /// Sorted by id.
    runners: RunnerSet,
    /// Looked into several times for every request. Runners alone put names in, so nobody can fill it with names that collide.
    models: HashMap<ModelId, Arc<ModelEntry>, RandomState>,
    place: Place,
}

/// Who has one model.
#[derive(Debug, Default, Clone)]
pub struct ModelEntry {
    loaded: RunnerSet,
    on_demand: RunnerSet,
    known: RunnerSet,
}

impl ModelEntry {
    /// Operational runners that have it in memory.
    pub fn loaded(&self) -> &RunnerSet {
        &self.loaded
    }

    /// Operational runners that have it not in memory but load it when a request asks for it.
    pub fn on_demand(&self) -> &RunnerSet {
        &self.on_demand
    }

    /// Every runner that knows it, in whatever state it and the runner are.
    pub fn known(&self) -> &RunnerSet {
        &self.known
    }

    fn of(model: &ModelId) -> Self {
        let nobody = || RunnerSet::knowing(model);
        Self { loaded: nobody(), on_demand: nobody(), known: nobody() }
    }

    fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn without(&self, runner: &Arc<Runner>) -> Self {
        Self {
            loaded: self.loaded.without(runner),
            on_demand: self.on_demand.without(runner),
            known: self.known.without(runner),
        }
    }

    /// With one more; `None` if it is in already.
    fn with(&self, runner: &Arc<Runner>, state: &ModelState) -> Option<Self> {
        // Two canonical names may stand for one local one.
        if self.known.last().is_some_and(|last| last.key() == runner.key()) {
            return None;
        }
        let operational = runner.status().health.is_operational();
        let enter = |set: &RunnerSet, is_in: bool| if is_in { set.with(runner) } else { set.clone() };
        Some(Self {
            loaded: enter(&self.loaded, operational && *state == ModelState::Loaded),
            on_demand: enter(&self.on_demand, operational && *state == ModelState::OnDemand),
            known: self.known.with(runner),
        })
    }
}

impl Fleet {
    pub(crate) fn new(place: Place) -> Self {
        Self { place, ..Self::default() }
    }

    /// What tells those who wait that a slot may be free. The same for all snapshots of one registry.
    pub fn bell(&self) -> &Arc<Bell> {
        &self.place.bell
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Every runner, sorted by id.
    pub fn runners(&self) -> &RunnerSet {
        &self.runners
    }

    /// The runner with that id.
    pub fn runner(&self, id: &str) -> Option<&Arc<Runner>> {
        let at = self.runners.binary_search_by(|runner| runner.id().as_str().cmp(id)).ok()?;
        self.runners.get(at)
    }

    /// Who has the model that is known under `name`, which may be canonical or a runner's local name.
    pub fn model(&self, name: &str) -> Option<&Arc<ModelEntry>> {
        self.models.get(name)
    }

    /// The shared copy of a model's name, which costs nothing to clone, if any runner knows the model.
    pub fn known_model(&self, name: &str) -> Option<&ModelId> {
        self.models.get_key_value(name).map(|(id, _)| id)
    }

    /// The canonical names of all models, each with one runner's description of it, sorted by name.
    /// Models that can serve now come with a description from a runner that serves them.
    pub fn models(&self) -> Vec<&Model> {
        let mut models: Vec<&Model> = Vec::with_capacity(self.models.len());
        for (name, entry) in &self.models {
            let serving = entry.loaded.iter().chain(entry.on_demand.iter()).chain(entry.known.iter());
            let described =
                serving.flat_map(|runner| &runner.status().models).find(|model| model.id == *name);
            models.extend(described);
        }
        models.sort_by(|a, b| a.id.cmp(&b.id));
        models
    }

    /// Whether at least one runner could take a request for some model now, or a task: a runner takes tasks if it
    /// is known what resources it has free.
    pub fn can_serve(&self) -> bool {
        let takes_tasks =
            |runner: &Arc<Runner>| runner.is_available() && runner.available_resources().is_some();
        self.runners.iter().any(takes_tasks)
            || self.models.values().any(|entry| {
                entry.loaded.iter().chain(entry.on_demand.iter()).any(|runner| runner.is_available())
            })
    }

    /// The snapshot after `old`, one of this one's own, was replaced by `new`. Either may be absent. Costs one pass over the
    /// runners and one over each model that either of them has.
    pub(crate) fn replace(&self, old: Option<&Arc<Runner>>, new: Option<Arc<Runner>>) -> Self {
        let mut models = self.models.clone();
        // Each row of runners is copied once at most: ten thousand that come one by one copy fifty million places.
        let rest = old.map(|old| self.runners.without(old));
        if let Some(old) = old {
            for name in names(old) {
                let Some(entry) = models.get(name) else { continue };
                let entry = entry.without(old);
                if entry.is_empty() {
                    models.remove(name);
                } else {
                    models.insert(name.clone(), Arc::new(entry));
                }
            }
        }
        let runners = match new {
            Some(new) => {
                for model in &new.status().models {
                    let mut enter = |name: &ModelId| {
                        let entry = match models.get(name) {
                            Some(entry) => entry.with(&new, &model.state),
                            None => ModelEntry::of(name).with(&new, &model.state),
                        };
                        if let Some(entry) = entry {
                            models.insert(name.clone(), Arc::new(entry));
                        }
                    };
                    enter(&model.id);
                    if model.local_name() != &model.id {
                        enter(model.local_name());
                    }
                }
                let rest = rest.as_ref().unwrap_or(&self.runners);
                let at = rest.partition_point(|runner| runner.id() < new.id());
                rest.with_at(at, new)
            }
            None => rest.unwrap_or_else(|| self.runners.clone()),
        };
        Self { version: self.version + 1, runners, models, place: self.place.clone() }
    }

    pub(crate) fn current(&self, key: &RunnerKey) -> Option<&Arc<Runner>> {
        self.runner(key.id.as_str()).filter(|runner| runner.key() == key)
    }

    pub(crate) fn by_id(&self, id: &RunnerId) -> Option<&Arc<Runner>> {
        self.runner(id.as_str())
    }
}

fn names(runner: &Runner) -> impl Iterator<Item = &ModelId> {
    runner.status().models.iter().flat_map(|model| [&model.id, model.local_name()])
}
