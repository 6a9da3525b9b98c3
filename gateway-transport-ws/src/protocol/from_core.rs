//! From the gateway's own model of a runner to the wire: what a runner's agent sends.

use std::collections::BTreeMap;

use gateway_core as core;
use gateway_core::{ModelState, RunnerSpec};

use super::{
    Capability, CapabilityInfo, CapabilityStatus, CommandResponse, EngineStatus, Health, Load, ModelInfo,
    PROTOCOL_VERSION, Register, Resources, ResourcesReport, RunnerStatus, TunnelRequest, time,
};

impl Register {
    /// The registration of a runner. `http_port` matters for dialling back only.
    pub fn new(
        spec: &RunnerSpec,
        auth_token: impl Into<String>,
        http_port: u16,
        tunnel: Option<TunnelRequest>,
        status: RunnerStatus,
    ) -> Self {
        Self {
            runner_id: spec.id.as_str().to_owned(),
            runner_name: spec.name.clone(),
            machine_type: spec.machine.description.clone(),
            http_port,
            protocol_version: PROTOCOL_VERSION,
            auth_token: auth_token.into(),
            status,
            mac_address: spec.machine.mac_address.clone(),
            slots: spec.slots.map(std::num::NonZeroU32::get),
            labels: Some(spec.labels.clone()).filter(|labels| !labels.is_empty()),
            tunnel,
        }
    }
}

impl CommandResponse {
    /// The answer to the command with that id.
    pub fn new(request_id: impl Into<String>, reply: core::CommandReply, engine_type: &str) -> Self {
        Self {
            request_id: request_id.into(),
            success: reply.result.is_ok(),
            error: reply.result.err(),
            status: reply.status.map(|status| RunnerStatus::from_core(&status, engine_type)),
        }
    }
}

impl RunnerStatus {
    /// What stands on the wire for a runner with one engine.
    ///
    /// The protocol has a place for a model that is loading, unloading or failed only beside a capability;
    /// for such a model that no capability names, one is made up.
    pub fn from_core(status: &core::RunnerStatus, engine_type: &str) -> Self {
        let mut capabilities: Vec<_> =
            status.capabilities.iter().map(|report| capability(report, status)).collect();
        let mut model_aliases = BTreeMap::new();
        let mut engine = EngineStatus {
            engine_type: engine_type.to_owned(),
            is_healthy: status.health != core::Health::Unhealthy,
            batch_size: 1,
            ..EngineStatus::default()
        };
        for model in &status.models {
            let local = model.local_name().as_str().to_owned();
            if model.local_name() != &model.id {
                model_aliases.insert(model.id.as_str().to_owned(), local.clone());
            }
            match &model.state {
                ModelState::Loaded => engine.loaded_models.push(local.clone()),
                ModelState::Available | ModelState::OnDemand => {}
                state => {
                    let told = |info: &CapabilityInfo| info.model_id.as_deref() == Some(local.as_str());
                    if !capabilities.iter().any(told) {
                        capabilities.push(CapabilityInfo {
                            capability: Capability::FastChat,
                            status: state_of(state),
                            model_id: Some(local.clone()),
                            active_requests: None,
                            avg_latency_ms: None,
                            metadata: None,
                        });
                    }
                }
            }
            engine.available_models.push(ModelInfo {
                id: local,
                name: model.id.as_str().to_owned(),
                size_bytes: model.size_bytes,
                context_length: model.context_length,
                modified_at: model.created.map(time::format),
                on_demand: model.state == ModelState::OnDemand,
                ..ModelInfo::default()
            });
        }
        let resources = ResourcesReport::from(status.resources);
        Self {
            health: status.health.into(),
            capabilities,
            engines: vec![engine],
            metrics: None,
            model_aliases,
            load: status.load.map(|load| Load { active: load.active, queued: load.queued }),
            resources: Some(resources).filter(|resources| *resources != ResourcesReport::default()),
        }
    }
}

fn capability(report: &core::CapabilityReport, status: &core::RunnerStatus) -> CapabilityInfo {
    let local = report.model.as_ref().map(|id| {
        let model = status.models.iter().find(|model| model.id == *id);
        model.map_or(id, core::Model::local_name).as_str().to_owned()
    });
    CapabilityInfo {
        capability: report.capability.into(),
        status: state_of(&report.state),
        model_id: local,
        active_requests: None,
        avg_latency_ms: None,
        metadata: None,
    }
}

fn state_of(state: &ModelState) -> CapabilityStatus {
    match state {
        ModelState::Available | ModelState::OnDemand => CapabilityStatus::Unloaded,
        ModelState::Loading { progress } => CapabilityStatus::Loading { progress: *progress },
        ModelState::Loaded => CapabilityStatus::Loaded,
        ModelState::Unloading => CapabilityStatus::Unloading,
        ModelState::Failed { message } => {
            CapabilityStatus::Error { message: message.clone().unwrap_or_default() }
        }
    }
}

impl From<core::Health> for Health {
    fn from(health: core::Health) -> Self {
        match health {
            core::Health::Healthy => Self::Healthy,
            core::Health::Degraded => Self::Degraded,
            core::Health::Starting => Self::Starting,
            core::Health::ShuttingDown => Self::ShuttingDown,
            core::Health::Unhealthy => Self::Unhealthy,
        }
    }
}

impl From<core::Capability> for Capability {
    fn from(capability: core::Capability) -> Self {
        match capability {
            core::Capability::FastChat => Self::FastChat,
            core::Capability::LargeChat => Self::LargeChat,
            core::Capability::Embeddings => Self::Embeddings,
            core::Capability::Translation => Self::Translation,
            core::Capability::Ocr => Self::Ocr,
            core::Capability::AudioEmbeddings => Self::AudioEmbeddings,
            core::Capability::Tts => Self::Tts,
        }
    }
}

impl From<core::ResourceReport> for ResourcesReport {
    fn from(report: core::ResourceReport) -> Self {
        let amount =
            |of: core::Resources| Resources { cpus: of.cpus, gpus: of.gpus, memory_gb: of.memory_gb };
        Self { total: report.total.map(amount), available: report.available.map(amount) }
    }
}
