//! One worker's time in the registry.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::{
    CancellationToken, Health, LeaveReason, Membership, Model, ProbeVerdict, Registry, Runner, RunnerLink,
    RunnerSpec, RunnerStatus,
};
use tokio::time::sleep;

use super::GrpcRunners;
use super::runner::Parts;
use crate::link::GrpcLink;

/// Probes a worker and keeps what the registry knows of it up to date, until the source stops or somebody
/// removes it.
pub(super) async fn tend(parts: Parts, registry: Arc<dyn Registry>, stop: CancellationToken) {
    let Parts { link, spec, models, interval } = parts;
    let link = Arc::new(link);
    let mut visit = Visit { link: link.clone(), registry, member: None };
    let stopped = tokio::select! {
        biased;
        () = stop.cancelled() => true,
        () = visit.attend(spec, models, interval) => false,
    };
    let Some(mut member) = visit.member else { return };
    if stopped {
        member.membership.set_reason(LeaveReason::Shutdown);
        drop(member);
        link.close();
    } else {
        // Whoever took its id or took it out meant it. Its requests hold the link themselves.
        tracing::warn!(runner = %member.membership.key(), "the worker was replaced or removed; no more probes");
    }
}

/// A worker while it is watched.
struct Visit {
    link: Arc<GrpcLink>,
    registry: Arc<dyn Registry>,
    member: Option<Member>,
}

/// A worker that has joined.
struct Member {
    membership: Membership,
    /// `None` if it was replaced in the same moment.
    runner: Option<Arc<Runner>>,
}

impl Visit {
    /// Until it is replaced or removed.
    async fn attend(&mut self, spec: RunnerSpec, models: Option<Vec<Model>>, interval: Duration) {
        let mut verdict = ProbeVerdict::default();
        let mut spec = Some(spec);
        if let Some(models) = &models {
            // Nobody has heard of it, but whoever gives models says that they are there.
            let status =
                RunnerStatus { health: Health::Healthy, models: models.clone(), ..RunnerStatus::default() };
            verdict = ProbeVerdict::new(status.clone());
            if let Some(spec) = spec.take() {
                self.join(spec, status);
            }
        }
        let mut complained = false;
        loop {
            let status = match self.link.status(models.as_deref()).await {
                Ok(status) => Some(verdict.heard(status)),
                Err(error) if error.is_unsupported() && !complained => {
                    complained = true;
                    let address = self.link.describe().address;
                    tracing::warn!(?address, %error, "a worker does not list its models: give them");
                    verdict.missed()
                }
                Err(error) => {
                    let address = self.link.describe().address;
                    tracing::debug!(?address, %error, "a probe failed");
                    let outage = verdict.missed();
                    if outage.is_some() {
                        tracing::warn!(?address, %error, "a worker does not answer");
                    }
                    outage
                }
            };
            if let Some(status) = status {
                if let Some(member) = &self.member {
                    if !member.membership.status(status) {
                        return;
                    }
                } else if status.health.is_operational()
                    && let Some(mut spec) = spec.take()
                {
                    // One more would not be sent: better that it waits.
                    spec.slots = spec.slots.or_else(|| NonZeroU32::new(self.link.allowed()?));
                    self.join(spec, status);
                }
            }
            let pause =
                if verdict.is_missing() { interval.min(GrpcRunners::RETRY_INTERVAL) } else { interval };
            tokio::select! {
                () = self.left() => return,
                () = sleep(jittered(pause)) => {}
            }
        }
    }

    fn join(&mut self, spec: RunnerSpec, status: RunnerStatus) {
        let membership = Membership::join(self.registry.clone(), spec, status, self.link.clone());
        let fleet = self.registry.fleet();
        let runner = fleet.runner(membership.key().id.as_str());
        let runner = runner.filter(|runner| runner.key() == membership.key()).cloned();
        self.member = Some(Member { membership, runner });
    }

    async fn left(&self) {
        match self.member.as_ref().and_then(|member| member.runner.as_ref()) {
            Some(runner) => runner.left().await,
            None => std::future::pending().await,
        }
    }
}

/// Give or take a tenth, so that the probes of many workers and gateways do not fall together.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}
