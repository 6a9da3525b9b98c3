//! vLLM: its gauges in `/metrics`, else `/load`. Its `max_model_len` is part of `/v1/models`. How many requests it
//! takes at once it does not tell.

use std::sync::atomic::{AtomicBool, Ordering};

use gateway_core::ReportedLoad;
use serde::Deserialize;

use super::probe::{Probe, gauge};

#[derive(Debug, Deserialize)]
struct ServerLoad {
    server_load: u32,
}

/// How busy it is, if it tells. `counts` remembers whether its `/load` has ever told of a request.
pub(super) async fn load(probe: &Probe<'_>, counts: &AtomicBool) -> Option<ReportedLoad> {
    if let Some(reply) = probe.get("/metrics").await.ok().filter(|reply| reply.status.is_success()) {
        let active = gauge(reply.text(), "vllm:num_requests_running");
        let queued = gauge(reply.text(), "vllm:num_requests_waiting");
        if let (Some(active), Some(queued)) = (active, queued) {
            return Some(ReportedLoad { active, queued });
        }
    }
    let load: ServerLoad = probe.look("/load").await?;
    // A server that was not told to count says 0 all the time.
    let counts = counts.fetch_or(load.server_load > 0, Ordering::Relaxed) || load.server_load > 0;
    counts.then_some(ReportedLoad { active: load.server_load, queued: 0 })
}
