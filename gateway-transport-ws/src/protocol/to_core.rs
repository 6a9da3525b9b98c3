//! From the wire to the gateway's own model of a runner.

use std::collections::{BTreeMap, HashMap, HashSet};

use gateway_core as core;
use gateway_core::{InvalidName, ModelId, ModelState, RunnerId, RunnerSpec};

use super::{
    Capability, CapabilityInfo, CapabilityStatus, CommandResponse, Health, Register, RunnerStatus, time,
};

/// The most labels that are kept of a runner; more are dropped.
const MAX_LABELS: usize = 64;

/// The most models that are kept of a runner; more are dropped.
const MAX_MODELS: usize = 4096;

/// The most capabilities that are kept of a runner: one for each model. More are dropped.
const MAX_CAPABILITIES: usize = MAX_MODELS;

/// The most canonical names that one local name has; more are dropped.
const MAX_ALIASES: usize = 64;

/// The longest free text that is kept of a runner, in bytes: names, descriptions, why something failed. One message has
/// room for a megabyte of it, and every model of an engine has the engine's error.
const MAX_TEXT: usize = 1024;

/// The text, or as much of its beginning as is kept.
fn brief(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

impl Register {
    /// What the runner is, apart from its status. A runner that asked for the tunnel never has more slots
    /// than streams.
    ///
    /// Fails if the id is no [`RunnerId`].
    pub fn spec(&self) -> Result<RunnerSpec, InvalidName> {
        let mut spec = RunnerSpec::new(RunnerId::new(&self.runner_id)?);
        if !self.runner_name.is_empty() {
            spec.name = brief(&self.runner_name);
        }
        spec.machine.description = self.machine_type.as_deref().map(brief);
        spec.machine.mac_address = self.mac_address.as_deref().map(brief);
        spec.labels =
            self.labels.iter().flatten().take(MAX_LABELS).map(|(k, v)| (brief(k), brief(v))).collect();
        spec = spec.slots(self.slots.unwrap_or(0));
        Ok(spec)
    }
}

impl CommandResponse {
    /// What it means, without the id.
    pub fn reply(&self) -> core::CommandReply {
        let result = if self.success {
            Ok(())
        } else {
            Err(self.error.as_deref().map_or_else(|| "the runner gave no reason".to_owned(), brief))
        };
        core::CommandReply { result, status: self.status.as_ref().map(RunnerStatus::to_core) }
    }
}

impl RunnerStatus {
    /// What it means. Names that no [`ModelId`] can hold are dropped.
    ///
    /// Models are known by their canonical name: the key of `model_aliases` whose value is the name that
    /// the engine uses. Models of an engine that is not healthy have failed, whatever its list says.
    pub fn to_core(&self) -> core::RunnerStatus {
        let mut models = Models::new(&self.model_aliases);
        for engine in &self.engines {
            let error = engine.error.as_deref().map(brief);
            for name in &engine.loaded_models {
                let state = if engine.is_healthy {
                    ModelState::Loaded
                } else {
                    ModelState::Failed { message: error.clone() }
                };
                models.see(name, state);
            }
        }
        for info in self.capabilities.iter().filter(|info| info.status != CapabilityStatus::Unloaded) {
            if let Some(name) = &info.model_id {
                models.see(name, state_of(&info.status));
            }
        }
        for engine in &self.engines {
            let error = engine.error.as_deref().map(brief);
            for info in &engine.available_models {
                let state = match (engine.is_healthy, info.on_demand) {
                    (false, _) => ModelState::Failed { message: error.clone() },
                    (true, true) => ModelState::OnDemand,
                    (true, false) => ModelState::Available,
                };
                models.see(&info.id, state);
                models.describe(&info.id, |model| {
                    model.context_length = info.context_length.or(model.context_length);
                    model.size_bytes = info.size_bytes.or(model.size_bytes);
                    let created = info.modified_at.as_deref().and_then(time::parse);
                    model.created = created.or(model.created);
                });
            }
        }
        // Kept for as long as the runner is in.
        models.list.shrink_to_fit();
        let capabilities = self.capabilities.iter().take(MAX_CAPABILITIES);
        let capabilities = capabilities.map(|info| report(&models, info)).collect();
        core::RunnerStatus {
            health: self.health.into(),
            capabilities,
            resources: self.resources.map(Into::into).unwrap_or_default(),
            load: self.reported_load(),
            models: models.list,
        }
    }

    /// Our extension if it is there; else the sum of what the capabilities say. A sum of zero is as good as
    /// nothing said, because zero is also what stands there when a runner does not count.
    fn reported_load(&self) -> Option<core::ReportedLoad> {
        if let Some(load) = self.load {
            return Some(core::ReportedLoad { active: load.active, queued: load.queued });
        }
        let active = self.active_requests().filter(|active| *active > 0)?;
        Some(core::ReportedLoad { active, queued: 0 })
    }

    /// The sum over all capabilities, if any of them says anything.
    pub(crate) fn active_requests(&self) -> Option<u32> {
        self.capabilities.iter().filter_map(|info| info.active_requests).reduce(u32::saturating_add)
    }
}

fn report(models: &Models<'_>, info: &CapabilityInfo) -> core::CapabilityReport {
    let name = info.model_id.as_deref().and_then(|name| models.names(name).into_iter().next());
    core::CapabilityReport {
        capability: info.capability.into(),
        model: name.and_then(|(id, _)| ModelId::new(id).ok()),
        state: state_of(&info.status),
    }
}

fn state_of(status: &CapabilityStatus) -> ModelState {
    match status {
        CapabilityStatus::Unloaded => ModelState::Available,
        CapabilityStatus::Loading { progress } => ModelState::Loading { progress: *progress },
        CapabilityStatus::Loaded => ModelState::Loaded,
        CapabilityStatus::Unloading => ModelState::Unloading,
        CapabilityStatus::Error { message } => {
            ModelState::Failed { message: Some(brief(message)).filter(|message| !message.is_empty()) }
        }
    }
}

/// The models seen so far, each once.
struct Models<'a> {
    aliases: &'a BTreeMap<String, String>,
    /// The same the other way round: a message has room for tens of thousands of them, and of names to look up.
    canonical: HashMap<&'a str, Vec<&'a str>>,
    list: Vec<core::Model>,
    index: BTreeMap<String, usize>,
    /// What the runner called those that were seen, so that a name that stands there time and again costs little.
    seen: HashSet<&'a str>,
}

impl<'a> Models<'a> {
    fn new(aliases: &'a BTreeMap<String, String>) -> Self {
        let mut canonical: HashMap<&str, Vec<&str>> = HashMap::new();
        for (id, local) in aliases {
            let names = canonical.entry(local).or_default();
            if names.len() < MAX_ALIASES {
                names.push(id);
            }
        }
        Self { aliases, canonical, list: Vec::new(), index: BTreeMap::new(), seen: HashSet::new() }
    }

    /// The canonical and local names of what the runner calls `name`. Several aliases may stand for one
    /// local name; a runner may also use the canonical name itself.
    fn names<'n>(&'n self, name: &'n str) -> Vec<(&'n str, &'n str)> {
        if let Some(local) = self.aliases.get(name) {
            return vec![(name, local)];
        }
        match self.canonical.get(name) {
            Some(ids) => ids.iter().map(|id| (*id, name)).collect(),
            None => vec![(name, name)],
        }
    }

    /// Enters a model unless it was seen before: the first word on its state counts, except that one on
    /// its way out of memory is not loaded any more, and one that is coming is more than not there.
    fn see(&mut self, name: &'a str, state: ModelState) {
        if !self.seen.insert(name) && state != ModelState::Unloading {
            return;
        }
        let names: Vec<_> =
            self.names(name).into_iter().map(|(id, local)| (id.to_owned(), local.to_owned())).collect();
        for (id, local) in names {
            if let Some(&at) = self.index.get(&id) {
                if state == ModelState::Unloading {
                    self.list[at].state = state.clone();
                }
                continue;
            }
            let (Ok(model), Ok(local)) = (ModelId::new(&id), ModelId::new(&local)) else { continue };
            if self.list.len() >= MAX_MODELS {
                continue;
            }
            self.index.insert(id, self.list.len());
            self.list.push(core::Model::new(model, state.clone()).with_local_name(local));
        }
    }

    fn describe(&mut self, name: &str, describe: impl Fn(&mut core::Model)) {
        let places: Vec<_> =
            self.names(name).iter().filter_map(|(id, _)| self.index.get(*id).copied()).collect();
        for at in places {
            describe(&mut self.list[at]);
        }
    }
}

impl From<Health> for core::Health {
    fn from(health: Health) -> Self {
        match health {
            Health::Healthy => Self::Healthy,
            Health::Degraded => Self::Degraded,
            Health::Starting => Self::Starting,
            Health::ShuttingDown => Self::ShuttingDown,
            Health::Unhealthy => Self::Unhealthy,
        }
    }
}

impl From<Capability> for core::Capability {
    fn from(capability: Capability) -> Self {
        match capability {
            Capability::FastChat => Self::FastChat,
            Capability::LargeChat => Self::LargeChat,
            Capability::Embeddings => Self::Embeddings,
            Capability::Translation => Self::Translation,
            Capability::Ocr => Self::Ocr,
            Capability::AudioEmbeddings => Self::AudioEmbeddings,
            Capability::Tts => Self::Tts,
        }
    }
}

impl From<super::ResourcesReport> for core::ResourceReport {
    fn from(report: super::ResourcesReport) -> Self {
        let amount =
            |of: super::Resources| core::Resources { cpus: of.cpus, gpus: of.gpus, memory_gb: of.memory_gb };
        Self { total: report.total.map(amount), available: report.available.map(amount), max_age: None }
    }
}
