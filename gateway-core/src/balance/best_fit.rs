use super::choice::{reserve_least, share};
use super::{Balancer, Candidates};
use crate::router::Requirements;
use crate::runner::{Load, MachineKind, Reservation, Runner};

/// The runner that offers the least beyond what the request needs, so that scarce machines stay free for
/// the requests that need them. Among equals the least loaded.
///
/// Use it in a mixed fleet. What a machine offers beyond the need is compared in this order: accelerators
/// that are not asked for, models besides the one asked for, context length, memory, cores. A runner that
/// does not say what it has comes after those that do: it may have anything. A runner that is full is passed over, so a scarce machine
/// does serve when nothing else can. Looks at every candidate.
#[derive(Debug, Clone, Copy, Default)]
pub struct BestFit;

/// What a runner offers beyond the need; smaller fits better.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
struct Surplus {
    gpus: f64,
    models: usize,
    context: u32,
    memory_gb: f64,
    cpus: f64,
    load: f64,
}

impl Surplus {
    fn of(runner: &Runner, requirements: &Requirements, load: &Load) -> Self {
        let total = runner.status().resources.total;
        let need = requirements.resources.unwrap_or_default();
        let gpus = match total {
            Some(total) => (total.gpus - need.gpus).max(0.0),
            None if requirements.machine == Some(MachineKind::Gpu) => 0.0,
            None => f64::from(u8::from(runner.spec().machine.kind() == Some(MachineKind::Gpu))),
        };
        let context = requirements.model.as_ref().and_then(|name| runner.model(name.as_str()));
        Self {
            gpus,
            models: runner.status().models.len(),
            context: context.and_then(|model| model.context_length).unwrap_or(u32::MAX),
            memory_gb: total.map_or(f64::INFINITY, |total| (total.memory_gb - need.memory_gb).max(0.0)),
            cpus: total.map_or(f64::INFINITY, |total| (total.cpus - need.cpus).max(0.0)),
            load: share(load),
        }
    }
}

impl Balancer for BestFit {
    fn name(&self) -> &'static str {
        "best-fit"
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        reserve_least(requirements, candidates, |runner, load| Surplus::of(runner, requirements, load))
    }
}
