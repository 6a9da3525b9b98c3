//! One runner's time in the registry.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::{
    CancellationToken, Command, Health, LeaveReason, LinkError, Membership, Model, Registry, RunnerLink,
    RunnerStatus,
};

use super::health::Verdict;
use super::runner::Parts;
use crate::engine::EngineLink;

/// Probes a runner until `stop`, and keeps what the registry knows of it up to date.
pub(super) async fn watch(parts: Parts, registry: Arc<dyn Registry>, stop: CancellationToken) {
    let link = Arc::new(parts.link);
    let (interval, mut spec) = (parts.interval, Some(parts.spec));
    let pinned: Option<Vec<Model>> =
        parts.models.map(|models| models.into_iter().map(Model::loaded).collect());
    let mut verdict = Verdict::default();
    let mut membership = None;
    let join = |spec, status| Membership::join(registry.clone(), spec, status, link.clone());
    if let Some(models) = &pinned {
        // Nobody has heard of it, but whoever pins models says that they are there.
        let status = RunnerStatus { health: Health::Healthy, models: models.clone(), ..Default::default() };
        verdict = Verdict::new(status.clone());
        membership = spec.take().map(|spec| join(spec, status));
    }
    loop {
        let probed = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            probed = probe(&link, pinned.as_deref()) => probed,
        };
        let status = match probed {
            Ok(Ok(status)) => Some(verdict.heard(status)),
            Ok(Err(problem)) => {
                tracing::debug!(address = ?link.describe().address, problem, "a probe failed");
                verdict.missed()
            }
            Err(error) => {
                tracing::debug!(address = ?link.describe().address, %error, "a probe failed");
                verdict.missed()
            }
        };
        if let Some(status) = status {
            if let Some(member) = &membership {
                if !member.status(status) {
                    // Whoever took its id or took it out meant it. Its requests hold the link themselves.
                    tracing::warn!(runner = %member.key(), "the runner was replaced or removed; no more probes");
                    return;
                }
            } else if status.health.is_operational()
                && let Some(mut known) = spec.take()
            {
                if known.slots.is_none() {
                    known.slots = tokio::select! {
                        () = stop.cancelled() => break,
                        slots = link.slots() => slots.and_then(NonZeroU32::new),
                    };
                }
                membership = Some(join(known, status));
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(jittered(interval)) => {}
        }
    }
    if let Some(member) = &mut membership {
        member.set_reason(LeaveReason::Shutdown);
    }
    drop(membership);
    link.close();
}

/// `Ok(Err(…))` holds what the engine itself complained of.
async fn probe(
    link: &EngineLink,
    pinned: Option<&[Model]>,
) -> Result<Result<RunnerStatus, String>, LinkError> {
    if let Some(models) = pinned {
        let well = || RunnerStatus { health: Health::Healthy, models: models.to_vec(), ..Default::default() };
        return Ok(link.alive().await?.map(|()| well()));
    }
    let reply = link.command(Command::Status).await?;
    Ok(reply.result.and_then(|()| reply.status.ok_or_else(|| "it sent no status".to_owned())))
}

/// Give or take a tenth, so that the probes of many runners and gateways do not fall together.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}
