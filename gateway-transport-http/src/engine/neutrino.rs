//! Runners that do tasks: `/capacity` says what is free of the machine, `/health` how it is.
//!
//! The document has a flat report, the shipped program a nested one. Each field may be missing or odd.

use std::time::Duration;

use gateway_core::{Health, LinkError, ReportedLoad, ResourceReport, Resources, RunnerStatus};
use serde::Deserialize;
use tokio::time::Instant;

use super::probe::{Probe, Reply, each, lenient};
use super::{Learnt, unavailable};

#[derive(Debug, Default, Deserialize)]
struct Capacity {
    #[serde(default, deserialize_with = "lenient")]
    available_cpus: Option<f64>,
    #[serde(default, deserialize_with = "lenient")]
    available_gpus: Option<f64>,
    #[serde(default, deserialize_with = "lenient")]
    available_memory_gb: Option<f64>,
    #[serde(default, deserialize_with = "lenient")]
    total_workers: Option<u32>,
    #[serde(default, deserialize_with = "lenient")]
    idle_workers: Option<u32>,
    #[serde(default, deserialize_with = "lenient")]
    total: Option<Amounts>,
    #[serde(default, deserialize_with = "lenient")]
    available: Option<Amounts>,
    #[serde(default, deserialize_with = "lenient")]
    allocated: Option<Amounts>,
    #[serde(default, deserialize_with = "each")]
    workers: Option<Vec<Worker>>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
struct Amounts {
    #[serde(default, alias = "num_cpus", deserialize_with = "lenient")]
    cpus: Option<f64>,
    #[serde(default, alias = "num_gpus", deserialize_with = "lenient")]
    gpus: Option<f64>,
    #[serde(default, deserialize_with = "lenient")]
    memory_gb: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Worker {
    #[serde(default, deserialize_with = "lenient")]
    state: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    #[serde(default, deserialize_with = "lenient")]
    status: Option<String>,
}

impl Amounts {
    /// What is free, if anything was said: what was not even mentioned is not there to be promised.
    fn free(self) -> Option<Resources> {
        let said = [self.cpus, self.gpus, self.memory_gb];
        let amount = |said: Option<f64>| said.filter(|amount| *amount > 0.0).unwrap_or(0.0);
        said.iter().any(Option::is_some).then(|| Resources {
            cpus: amount(self.cpus),
            gpus: amount(self.gpus),
            memory_gb: amount(self.memory_gb),
        })
    }

    /// All that there is, if all of it was said.
    fn whole(self) -> Option<Resources> {
        self.cpus.and(self.gpus).and(self.memory_gb)?;
        self.free()
    }

    fn less(self, taken: Self) -> Self {
        let less = |all: Option<f64>, taken: Option<f64>| Some(all? - taken?);
        Self {
            cpus: less(self.cpus, taken.cpus),
            gpus: less(self.gpus, taken.gpus),
            memory_gb: less(self.memory_gb, taken.memory_gb),
        }
    }
}

impl Capacity {
    fn is_one(&self) -> bool {
        self.available().is_some()
    }

    fn available(&self) -> Option<Resources> {
        let flat = Amounts {
            cpus: self.available_cpus,
            gpus: self.available_gpus,
            memory_gb: self.available_memory_gb,
        };
        let nested = self.available.and_then(Amounts::free);
        let left = || self.total?.less(self.allocated?).free();
        nested.or_else(|| flat.free()).or_else(left)
    }

    fn total(&self) -> Option<Resources> {
        // Where nobody is at work, all is free.
        let is_idle = self.idle().is_some_and(|idle| idle > 0 && self.workers() == Some(idle));
        let all_idle = || self.available().filter(|_| is_idle);
        self.total.and_then(Amounts::whole).or_else(all_idle)
    }

    fn workers(&self) -> Option<u32> {
        self.total_workers.or_else(|| u32::try_from(self.workers.as_ref()?.len()).ok())
    }

    fn idle(&self) -> Option<u32> {
        self.idle_workers.filter(|_| self.total_workers.is_some())
    }

    fn load(&self) -> Option<ReportedLoad> {
        let is_at_work = |worker: &&Worker| {
            let state = worker.state.as_deref().unwrap_or_default();
            ["busy", "executing", "running", "allocated"].iter().any(|word| state.eq_ignore_ascii_case(word))
        };
        let told = || self.workers.as_ref().filter(|all| all.iter().all(|worker| worker.state.is_some()));
        let counted = || u32::try_from(told()?.iter().filter(is_at_work).count()).ok();
        let active = self.workers().zip(self.idle()).map(|(all, idle)| all.saturating_sub(idle));
        Some(ReportedLoad { active: active.or_else(counted)?, queued: 0 })
    }
}

/// Whether it is one that answers; an error if that cannot be learnt now.
pub(super) async fn answers(probe: &Probe<'_>) -> Result<bool, LinkError> {
    let reply = probe.get("/capacity").await?;
    Ok(reply.status.is_success() && reply.json::<Capacity>().is_some_and(|capacity| capacity.is_one()))
}

/// How it is, and what it has free. `/capacity` is last, so that what it says is as new as can be.
pub(super) async fn learn(probe: &Probe<'_>, age: Duration) -> Result<Learnt, LinkError> {
    let health = health(&probe.get("/health").await?);
    let asked = Instant::now();
    let capacity: Capacity = probe.look("/capacity").await.unwrap_or_default();
    let available = capacity.available();
    let resources = ResourceReport {
        total: capacity.total(),
        available,
        max_age: available.map(|_| asked.elapsed().saturating_add(age)),
    };
    let status = RunnerStatus { health, resources, load: capacity.load(), ..RunnerStatus::default() };
    Ok(Learnt { slots: capacity.workers(), ..Learnt::new(status) })
}

fn health(reply: &Reply) -> Health {
    if reply.status.is_server_error() {
        return unavailable(reply);
    }
    let said = reply.json::<Condition>().and_then(|condition| condition.status);
    match said.unwrap_or_default().to_ascii_lowercase().as_str() {
        "unhealthy" | "error" => Health::Unhealthy,
        "degraded" => Health::Degraded,
        "starting" => Health::Starting,
        _ => Health::Healthy,
    }
}
