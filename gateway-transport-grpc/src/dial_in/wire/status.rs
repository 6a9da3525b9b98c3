//! What a runner is and how it is, on the wire and in the gateway's own model.

use std::num::NonZeroU32;

use gateway_core as core;
use gateway_core::{InvalidName, ModelId, RunnerId, RunnerSpec};

use crate::proto::runner_gateway::capability::Kind;
use crate::proto::runner_gateway::{
    Capability, Health, Load, Machine, Model, ModelState, Price, Register, Resources, RunnerStatus, price,
};

/// The most labels that are kept of a runner; more are dropped.
const MAX_LABELS: usize = 64;

/// The most models that are kept of a runner; more are dropped.
const MAX_MODELS: usize = 4096;

/// The most capabilities that are kept of a runner; more are dropped.
const MAX_CAPABILITIES: usize = 64;

/// What a runner says it is. Fails if the id is none.
pub(crate) fn register_from(register: &Register) -> Result<RunnerSpec, InvalidName> {
    let mut spec = RunnerSpec::new(RunnerId::new(&register.runner_id)?);
    if !register.name.is_empty() {
        spec.name = register.name.clone();
    }
    if let Some(machine) = &register.machine {
        spec.machine.description = Some(machine.description.clone()).filter(|words| !words.is_empty());
        spec.machine.mac_address = Some(machine.mac_address.clone()).filter(|address| !address.is_empty());
    }
    let labels = register.labels.iter().take(MAX_LABELS);
    spec.labels = labels.map(|(key, value)| (key.clone(), value.clone())).collect();
    spec = spec.slots(register.slots.unwrap_or(0));
    if let Some(price) = register.price.and_then(|price| price.price) {
        spec = spec.price(match price {
            price::Price::PerHour(price) => core::Price::PerHour(price),
            price::Price::PerMillionTokens(price) => core::Price::PerMillionTokens(price),
        });
    }
    spec.resources = register.resources.map(resources_from);
    Ok(spec)
}

/// What a runner says it is.
pub(crate) fn register_to(
    spec: &RunnerSpec,
    token: &str,
    max_streams: u32,
    status: RunnerStatus,
) -> Register {
    Register {
        protocol_version: super::super::PROTOCOL_VERSION,
        runner_id: spec.id.as_str().to_owned(),
        name: spec.name.clone(),
        token: token.to_owned(),
        machine: Some(Machine {
            description: spec.machine.description.clone().unwrap_or_default(),
            mac_address: spec.machine.mac_address.clone().unwrap_or_default(),
        }),
        slots: spec.slots.map(NonZeroU32::get),
        max_streams: Some(max_streams),
        labels: spec.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        price: spec.price.map(|price| Price {
            price: Some(match price {
                core::Price::PerHour(price) => price::Price::PerHour(price),
                core::Price::PerMillionTokens(price) => price::Price::PerMillionTokens(price),
            }),
        }),
        resources: spec.resources.map(resources_to),
        status: Some(status),
    }
}

/// How a runner is. Names that no [`ModelId`] can hold are dropped.
pub(crate) fn status_from(status: RunnerStatus) -> core::RunnerStatus {
    let health = match status.health() {
        Health::Healthy => core::Health::Healthy,
        Health::Degraded => core::Health::Degraded,
        Health::Starting => core::Health::Starting,
        Health::ShuttingDown => core::Health::ShuttingDown,
        Health::Unspecified | Health::Unhealthy => core::Health::Unhealthy,
    };
    let capabilities = status.capabilities.iter().take(MAX_CAPABILITIES).filter_map(capability_from);
    core::RunnerStatus {
        health,
        capabilities: capabilities.collect(),
        resources: core::ResourceReport {
            total: status.resources_total.map(resources_from),
            available: status.resources_available.map(resources_from),
            max_age: None,
        },
        load: status.load.map(|load| core::ReportedLoad { active: load.active, queued: load.queued }),
        models: status.models.into_iter().take(MAX_MODELS).filter_map(model_from).collect(),
    }
}

/// How a runner is.
pub(crate) fn status_to(status: &core::RunnerStatus) -> RunnerStatus {
    let health = match status.health {
        core::Health::Healthy => Health::Healthy,
        core::Health::Degraded => Health::Degraded,
        core::Health::Starting => Health::Starting,
        core::Health::ShuttingDown => Health::ShuttingDown,
        core::Health::Unhealthy => Health::Unhealthy,
    };
    RunnerStatus {
        health: health.into(),
        models: status.models.iter().map(model_to).collect(),
        capabilities: status.capabilities.iter().map(capability_to).collect(),
        load: status.load.map(|load| Load { active: load.active, queued: load.queued }),
        resources_total: status.resources.total.map(resources_to),
        resources_available: status.resources.available.map(resources_to),
    }
}

fn model_from(model: Model) -> Option<core::Model> {
    let state = match model.state() {
        ModelState::Loading => core::ModelState::Loading { progress: model.progress },
        ModelState::Failed => {
            core::ModelState::Failed { message: Some(model.error.clone()).filter(|words| !words.is_empty()) }
        }
        state => plain_state(state),
    };
    let mut core = core::Model::new(ModelId::new(&model.id).ok()?, state);
    if !model.local_name.is_empty() && model.local_name != model.id {
        core = core.with_local_name(ModelId::new(&model.local_name).ok()?);
    }
    core.context_length = model.context_length;
    core.size_bytes = model.size_bytes;
    core.created = model.created;
    Some(core)
}

fn model_to(model: &core::Model) -> Model {
    let local = model.local_name();
    let (progress, error) = match &model.state {
        core::ModelState::Loading { progress } => (*progress, String::new()),
        core::ModelState::Failed { message } => (None, message.clone().unwrap_or_default()),
        _ => (None, String::new()),
    };
    Model {
        id: model.id.as_str().to_owned(),
        local_name: if *local == model.id { String::new() } else { local.as_str().to_owned() },
        state: state_to(&model.state).into(),
        progress,
        error,
        context_length: model.context_length,
        size_bytes: model.size_bytes,
        created: model.created,
    }
}

fn plain_state(state: ModelState) -> core::ModelState {
    match state {
        ModelState::Unspecified | ModelState::Available => core::ModelState::Available,
        ModelState::OnDemand => core::ModelState::OnDemand,
        ModelState::Loading => core::ModelState::Loading { progress: None },
        ModelState::Loaded => core::ModelState::Loaded,
        ModelState::Unloading => core::ModelState::Unloading,
        ModelState::Failed => core::ModelState::Failed { message: None },
    }
}

fn state_to(state: &core::ModelState) -> ModelState {
    match state {
        core::ModelState::Available => ModelState::Available,
        core::ModelState::OnDemand => ModelState::OnDemand,
        core::ModelState::Loading { .. } => ModelState::Loading,
        core::ModelState::Loaded => ModelState::Loaded,
        core::ModelState::Unloading => ModelState::Unloading,
        core::ModelState::Failed { .. } => ModelState::Failed,
    }
}

fn capability_from(capability: &Capability) -> Option<core::CapabilityReport> {
    let kind = match capability.kind() {
        Kind::Unspecified => return None,
        Kind::FastChat => core::Capability::FastChat,
        Kind::LargeChat => core::Capability::LargeChat,
        Kind::Embeddings => core::Capability::Embeddings,
        Kind::Translation => core::Capability::Translation,
        Kind::Ocr => core::Capability::Ocr,
        Kind::AudioEmbeddings => core::Capability::AudioEmbeddings,
        Kind::Tts => core::Capability::Tts,
    };
    let model = ModelId::new(&capability.model).ok();
    Some(core::CapabilityReport { capability: kind, model, state: plain_state(capability.state()) })
}

fn capability_to(report: &core::CapabilityReport) -> Capability {
    let kind = match report.capability {
        core::Capability::FastChat => Kind::FastChat,
        core::Capability::LargeChat => Kind::LargeChat,
        core::Capability::Embeddings => Kind::Embeddings,
        core::Capability::Translation => Kind::Translation,
        core::Capability::Ocr => Kind::Ocr,
        core::Capability::AudioEmbeddings => Kind::AudioEmbeddings,
        core::Capability::Tts => Kind::Tts,
    };
    let model = report.model.as_ref().map_or("", ModelId::as_str).to_owned();
    Capability { kind: kind.into(), model, state: state_to(&report.state).into() }
}

fn resources_from(of: Resources) -> core::Resources {
    core::Resources { cpus: of.cpus, gpus: of.gpus, memory_gb: of.memory_gb }
}

fn resources_to(of: core::Resources) -> Resources {
    Resources { cpus: of.cpus, gpus: of.gpus, memory_gb: of.memory_gb }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let id = |name: &str| ModelId::new(name).unwrap();
        let states = [
            core::ModelState::Available,
            core::ModelState::OnDemand,
            core::ModelState::Loading { progress: Some(0.5) },
            core::ModelState::Loaded,
            core::ModelState::Unloading,
            core::ModelState::Failed { message: Some("no memory".to_owned()) },
        ];
        let mut models: Vec<_> = states
            .into_iter()
            .enumerate()
            .map(|(at, state)| core::Model::new(id(&format!("m{at}")), state))
            .collect();
        models[3] = models[3].clone().with_local_name(id("local"));
        models[3].context_length = Some(4096);
        let some = core::Resources { cpus: 1.5, gpus: 2.0, memory_gb: 3.0 };
        let status = core::RunnerStatus {
            health: core::Health::Degraded,
            models,
            capabilities: vec![core::CapabilityReport {
                capability: core::Capability::Ocr,
                model: Some(id("m3")),
                state: core::ModelState::Loaded,
            }],
            resources: core::ResourceReport { total: Some(some), available: None, max_age: None },
            load: Some(core::ReportedLoad { active: 0, queued: 2 }),
        };
        assert_eq!(status_from(status_to(&status)), status);
        let silent = core::RunnerStatus::default();
        assert_eq!(status_from(status_to(&silent)).load, None);

        let mut spec =
            RunnerSpec::new(RunnerId::new("r").unwrap()).slots(3).label("zone", "eu").machine("gpu");
        spec = spec.price(core::Price::PerMillionTokens(0.5));
        spec.resources = Some(some);
        let register = register_to(&spec, "t", 3, status_to(&status));
        let back = register_from(&register).unwrap();
        assert_eq!(format!("{back:?}"), format!("{spec:?}"));
        assert!(register_from(&Register::default()).is_err());
    }
}
