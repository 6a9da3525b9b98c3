//! One runner's time in the registry.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::{
    Health, LeaveReason, Membership, Model, ModelId, ProbeVerdict, Runner, RunnerLink, RunnerSpec,
    RunnerStatus,
};
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep, sleep_until};

use super::runner::{ENGINE, Parts};
use super::supervise::Shared;
use super::told::{Told, pace, probe};
use crate::engine::{EngineKind, EngineLink};
use crate::pause::jittered;

/// What is to become of a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The inventory has it.
    Stay,
    /// The inventory has another of its id. It serves until the other has joined in its place, at most until
    /// then: the other may never answer.
    HandOver { until: Instant },
    /// The inventory has it no more.
    Drain,
}

/// Probes a runner and keeps what the registry knows of it up to date, until the source stops or its fate
/// is to go. Then it may finish what it has.
pub(super) async fn watch(parts: Parts, shared: Arc<Shared>, fate: Receiver<Fate>) {
    let link = Arc::new(parts.link);
    let mut visit = Visit { link: link.clone(), shared: &shared, fate: fate.clone(), member: None };
    let attended = visit.attend(parts.spec, parts.models, parts.interval);
    let stopped = tokio::select! {
        biased;
        () = shared.stop.cancelled() => true,
        () = retired(fate.clone()) => false,
        () = attended => false,
    };
    if let Some(mut member) = visit.member {
        if stopped {
            member.membership.set_reason(LeaveReason::Shutdown);
        } else if *fate.borrow() == Fate::Stay {
            // Whoever took its id or took it out meant it. Its requests hold the link themselves.
            tracing::warn!(runner = %member.membership.key(), "the runner was replaced or removed; no more probes");
            return;
        } else {
            member.drain(&shared).await;
        }
    }
    link.close();
}

/// Waits until its fate is to go.
async fn retired(mut fate: Receiver<Fate>) {
    loop {
        let now = *fate.borrow_and_update();
        let changed = async {
            if fate.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        match now {
            Fate::Stay => changed.await,
            Fate::HandOver { until } => tokio::select! {
                () = sleep_until(until) => return,
                () = changed => {}
            },
            Fate::Drain => return,
        }
    }
}

/// A runner while it is watched.
struct Visit<'a> {
    link: Arc<EngineLink>,
    shared: &'a Shared,
    fate: Receiver<Fate>,
    member: Option<Member>,
}

/// A runner that has joined.
struct Member {
    membership: Membership,
    /// `None` if it was replaced in the same moment.
    runner: Option<Arc<Runner>>,
}

impl Visit<'_> {
    /// Until it is replaced.
    async fn attend(&mut self, spec: RunnerSpec, models: Option<Vec<ModelId>>, interval: Option<Duration>) {
        let mut told = Told::new(&spec);
        let mut spec = Some(spec);
        let pinned: Option<Vec<Model>> = models.map(|models| models.into_iter().map(Model::loaded).collect());
        let mut verdict = ProbeVerdict::default();
        if let Some(models) = &pinned {
            // Nobody has heard of it, but whoever pins models says that they are there.
            let status =
                RunnerStatus { health: Health::Healthy, models: models.clone(), ..Default::default() };
            verdict = ProbeVerdict::new(status.clone());
            if let Some(spec) = spec.take()
                && !self.join(spec, status)
            {
                return;
            }
        }
        loop {
            let status = match probe(&self.link, pinned.as_deref()).await {
                Ok(Ok(learnt)) => {
                    told.heard(learnt.slots, verdict.is_out());
                    Some(verdict.heard(learnt.status))
                }
                Ok(Err(problem)) => {
                    tracing::debug!(address = ?self.link.describe().address, problem, "a probe failed");
                    verdict.missed()
                }
                Err(error) => {
                    tracing::debug!(address = ?self.link.describe().address, %error, "a probe failed");
                    verdict.missed()
                }
            };
            if let Some(status) = status {
                if let Some(member) = &self.member {
                    let is_done = match told.news() {
                        Some(spec) => !member.has_left() && self.join(spec, status),
                        None => member.membership.status(status),
                    };
                    if !is_done {
                        return;
                    }
                } else if status.health.is_operational()
                    && let Some(mut known) = spec.take()
                {
                    known.slots = known.slots.or(told.slots());
                    if known.slots.is_none() && self.link.recognised() == EngineKind::OpenAi {
                        known.slots = self.link.slots().await.and_then(NonZeroU32::new);
                    }
                    let engine = || self.link.recognised().to_string();
                    known.labels.entry(ENGINE.to_owned()).or_insert_with(engine);
                    told.joined(&known);
                    if !self.join(known, status) {
                        return;
                    }
                }
            }
            tokio::select! {
                () = self.left() => return,
                () = sleep(jittered(interval.unwrap_or_else(|| pace(&self.link)))) => {}
            }
        }
    }

    /// `false` if it is too late for that.
    fn join(&mut self, spec: RunnerSpec, status: RunnerStatus) -> bool {
        let (registry, fate) = (&self.shared.registry, &self.fate);
        let wanted = || *fate.borrow() == Fate::Stay;
        let Some(membership) = self.shared.drains.join(registry, (spec, status), self.link.clone(), wanted)
        else {
            return false;
        };
        let fleet = registry.fleet();
        let runner = fleet.runner(membership.key().id.as_str());
        let runner = runner.filter(|runner| runner.key() == membership.key()).cloned();
        self.member = Some(Member { membership, runner });
        true
    }

    async fn left(&self) {
        match self.member.as_ref().and_then(|member| member.runner.as_ref()) {
            Some(runner) => runner.left().await,
            None => std::future::pending().await,
        }
    }
}

impl Member {
    fn has_left(&self) -> bool {
        self.runner.as_ref().is_none_or(|runner| runner.has_left())
    }

    /// Lets requests under way end, in the registry or out of it, and nothing new begin.
    async fn drain(&mut self, shared: &Shared) {
        let key = self.membership.key().clone();
        shared.drains.begin(&*shared.registry, &key);
        let finished = async {
            if let Some(runner) = &self.runner {
                runner.idle().await;
            }
        };
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => self.membership.set_reason(LeaveReason::Shutdown),
            () = finished => tracing::info!(runner = %key, "a runner has drained"),
            () = sleep(shared.drain_timeout()) => {
                let cut = self.runner.as_ref().map(|runner| runner.load().in_flight);
                tracing::warn!(runner = %key, cut, "the time to drain is up: requests of the runner are cut");
            }
        }
        shared.drains.end(&key);
    }
}
