use bytes::Bytes;
use gateway_core::{Feature, Labels, ModelState, Runner};
use http::{Response, StatusCode};
use serde::Serialize;

use super::time::rfc3339;
use crate::gateway::Shared;
use crate::respond::json;

#[derive(Serialize)]
struct List<'a> {
    runners: Vec<RunnerInfo<'a>>,
    total: usize,
}

/// A runner as the admin list of existing gateways has it, then what only this one knows.
#[derive(Serialize)]
struct RunnerInfo<'a> {
    id: &'a str,
    name: &'a str,
    machine_type: Option<&'a str>,
    health: &'static str,
    loaded_models: Vec<&'a str>,
    available_models: Vec<&'a str>,
    connected_at: String,
    last_heartbeat: String,
    http_base_url: Option<String>,
    mac_address: Option<&'a str>,
    is_online: bool,
    generation: u64,
    transport: &'static str,
    labels: &'a Labels,
    /// The fields of requests that do not go there.
    lacks: Vec<&'static str>,
    draining: bool,
    standing: &'static str,
    in_flight: u32,
    slots: Option<u32>,
    foreign_requests: Option<u32>,
}

/// `GET /runners` and `/admin/runners`.
pub(crate) fn runners(shared: &Shared) -> Response<Bytes> {
    let fleet = shared.dispatcher.registry().fleet();
    let runners: Vec<_> = fleet.runners().iter().map(|runner| RunnerInfo::new(shared, runner)).collect();
    json(StatusCode::OK, &List { total: runners.len(), runners })
}

impl<'a> RunnerInfo<'a> {
    fn new(shared: &Shared, runner: &'a Runner) -> Self {
        let spec = runner.spec();
        let load = runner.load();
        let link = runner.link().describe();
        Self {
            id: runner.id().as_str(),
            name: &spec.name,
            machine_type: spec.machine.description.as_deref(),
            health: runner.status().health.as_str(),
            loaded_models: loaded_models(runner),
            available_models: available_models(runner),
            connected_at: rfc3339(runner.joined()),
            last_heartbeat: rfc3339(runner.last_heard()),
            http_base_url: link.address,
            mac_address: spec.machine.mac_address.as_deref(),
            // One that is not is not in the fleet.
            is_online: true,
            generation: runner.key().generation.0,
            transport: link.transport,
            labels: &spec.labels,
            lacks: spec.lacks.iter().map(Feature::field).collect(),
            draining: runner.is_draining(),
            standing: shared.dispatcher.standing(runner).as_str(),
            in_flight: load.in_flight,
            slots: load.slots.map(|slots| slots.get()),
            foreign_requests: load.foreign,
        }
    }
}

pub(super) fn loaded_models(runner: &Runner) -> Vec<&str> {
    let models = runner.status().models.iter();
    models.filter(|model| model.state == ModelState::Loaded).map(|model| model.id.as_str()).collect()
}

/// All that the runner has, loaded or not.
pub(super) fn available_models(runner: &Runner) -> Vec<&str> {
    runner.status().models.iter().map(|model| model.id.as_str()).collect()
}
