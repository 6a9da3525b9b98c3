//! SGLang: `/server_info` (`/get_server_info` in older ones), its gauges in `/metrics`, else `/get_load`.
//!
//! Its `/health` is not asked: unless the server was told otherwise, each asking of it makes an idle engine
//! generate a token. `/server_info` asks the scheduler, too, and generates nothing.

use gateway_core::{Health, LinkError, Model, ReportedLoad};
use http::StatusCode;
use serde::Deserialize;

use super::probe::{Probe, each, gauge_of, lenient};
use super::unavailable;

#[derive(Debug, Default, Deserialize)]
struct Info {
    #[serde(default, deserialize_with = "lenient")]
    context_length: Option<u32>,
    #[serde(default, deserialize_with = "lenient")]
    max_running_requests: Option<u32>,
    #[serde(default, deserialize_with = "each")]
    internal_states: Option<Vec<State>>,
}

/// Of one of the replicas inside the server.
#[derive(Debug, Deserialize)]
struct State {
    #[serde(default, deserialize_with = "lenient")]
    effective_max_running_requests_per_dp: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct Load {
    /// Those that wait included.
    num_reqs: u32,
    num_waiting_reqs: u32,
}

/// What is learnt beside the list of models.
pub(super) struct Closer {
    pub(super) health: Health,
    pub(super) slots: Option<u32>,
    pub(super) load: Option<ReportedLoad>,
}

/// Adds to the models what the server tells of itself. An error if the scheduler does not answer.
pub(super) async fn look_closer(probe: &Probe<'_>, models: &mut [Model]) -> Result<Closer, LinkError> {
    let mut reply = probe.get("/server_info").await?;
    if reply.status == StatusCode::NOT_FOUND {
        reply = probe.get("/get_server_info").await?;
    }
    let health = if reply.status.is_server_error() { unavailable(&reply) } else { Health::Healthy };
    let info: Info = reply.json().filter(|_| reply.status.is_success()).unwrap_or_default();
    for model in models {
        model.context_length = model.context_length.or(info.context_length.filter(|tokens| *tokens > 0));
    }
    Ok(Closer { health, slots: info.slots(), load: load(probe).await })
}

impl Info {
    /// What the scheduler takes at once, in all replicas.
    fn slots(&self) -> Option<u32> {
        let of = |state: &State| state.effective_max_running_requests_per_dp;
        let states = self.internal_states.as_deref().unwrap_or_default();
        let each: Option<Vec<u32>> = states.iter().map(of).collect();
        let sum = each.filter(|each| !each.is_empty()).map(|each| each.iter().sum());
        sum.or(self.max_running_requests).filter(|slots| *slots > 0)
    }
}

/// `/metrics` has to be switched on in the server.
async fn load(probe: &Probe<'_>) -> Option<ReportedLoad> {
    if let Some(reply) = probe.get("/metrics").await.ok().filter(|reply| reply.status.is_success()) {
        // Those that work on one request together each tell of it.
        let is_first = |labels: &str| {
            let other = |label: &str| {
                labels.contains(&format!("{label}=\"")) && !labels.contains(&format!("{label}=\"0\""))
            };
            !other("tp_rank") && !other("pp_rank")
        };
        let active = gauge_of(reply.text(), "sglang:num_running_reqs", is_first);
        let queued = gauge_of(reply.text(), "sglang:num_queue_reqs", is_first);
        if let (Some(active), Some(queued)) = (active, queued) {
            return Some(ReportedLoad { active, queued });
        }
    }
    let loads: Vec<Load> = probe.look("/get_load").await?;
    loads.into_iter().map(|load| (load.num_reqs, load.num_waiting_reqs)).fold(None, |sum, (all, queued)| {
        let sum = sum.unwrap_or(ReportedLoad { active: 0, queued: 0 });
        let active = sum.active.saturating_add(all.saturating_sub(queued));
        Some(ReportedLoad { active, queued: sum.queued.saturating_add(queued) })
    })
}
