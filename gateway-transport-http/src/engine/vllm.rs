//! vLLM: its gauges in `/metrics`. Its `max_model_len` is part of `/v1/models`.

use gateway_core::ReportedLoad;

use super::probe::{Probe, gauge};

/// How busy it is, if it tells.
pub(super) async fn load(probe: &Probe<'_>) -> Option<ReportedLoad> {
    let reply = probe.get("/metrics").await.ok().filter(|reply| reply.status.is_success())?;
    let active = gauge(reply.text(), "vllm:num_requests_running")?;
    let queued = gauge(reply.text(), "vllm:num_requests_waiting")?;
    Some(ReportedLoad { active, queued })
}
