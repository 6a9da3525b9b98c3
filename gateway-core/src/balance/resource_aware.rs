use super::choice::{reserve_least, share};
use super::{Balancer, Candidates, Score};
use crate::router::Requirements;
use crate::runner::{Load, Reservation, Resources, Runner};

/// The runner that the request's resources fit into most closely: what is left free of the resource that it
/// takes the greatest share of is least. Large gaps stay for requests that need them.
///
/// Use it when requests say what they need ([`Requirements::resources`]): cores, accelerators, memory. What
/// one request is given is gone for the next at once, not when the runner reports again, so a burst between
/// two reports never gets more than there is. A runner that does not report resources gets no request that
/// needs some.
///
/// The resource that counts is the request's *dominant* one on that runner, the idea of dominant resource
/// fairness (Ghodsi et al., NSDI 2011); that the closest fit is taken is best-fit packing. Runners with
/// accelerators come last for a request that needs none. Ties, and requests that need nothing, go to the
/// smallest share of slots in use. Looks at every candidate. `explain` shows `left`, the share of the dominant
/// resource that would be left free; less is better.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResourceAware;

/// How a request fits; smaller fits better.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
struct Fit {
    /// Accelerators that would stand idle beside it.
    wastes_gpus: bool,
    /// Share of the dominant resource that is left free.
    left: f64,
    load: f64,
}

impl Fit {
    fn of(requirements: &Requirements, runner: &Runner, load: &Load) -> Self {
        let load = share(load);
        let needs = requirements.resources.filter(|need| need.cpus + need.gpus + need.memory_gb > 0.0);
        let (Some(need), Some(total)) = (needs, runner.total_resources()) else {
            return Self { wastes_gpus: false, left: 0.0, load };
        };
        let free = runner.available_resources().unwrap_or_default();
        Self { wastes_gpus: need.gpus <= 0.0 && total.gpus > 0.0, left: left(&need, &free, &total), load }
    }
}

/// The share that is left free of the resource of which the request takes the greatest share.
fn left(need: &Resources, free: &Resources, total: &Resources) -> f64 {
    let of = [
        (need.cpus, free.cpus, total.cpus),
        (need.gpus, free.gpus, total.gpus),
        (need.memory_gb, free.memory_gb, total.memory_gb),
    ];
    let shares = of.into_iter().filter(|(need, _, total)| *need > 0.0 && *total > 0.0);
    let dominant = shares.max_by(|(a, _, all_a), (b, _, all_b)| (a / all_a).total_cmp(&(b / all_b)));
    dominant.map_or(0.0, |(need, free, total)| ((free - need) / total).clamp(0.0, 1.0))
}

impl Balancer for ResourceAware {
    fn name(&self) -> &'static str {
        "resource-aware"
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        reserve_least(requirements, candidates, |runner, load| Fit::of(requirements, runner, load))
    }

    fn scores(&self, requirements: &Requirements, runner: &Runner, scores: &mut Vec<Score>) {
        scores.push(Score { name: "left", value: Fit::of(requirements, runner, &runner.load()).left });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_is_the_dominant_resource() {
        let need = Resources { cpus: 4.0, gpus: 1.0, memory_gb: 10.0 };
        let total = Resources { cpus: 64.0, gpus: 8.0, memory_gb: 640.0 };
        let free = Resources { cpus: 4.0, gpus: 3.0, memory_gb: 640.0 };
        // An eighth of the accelerators is more than a sixteenth of the cores.
        assert_eq!(left(&need, &free, &total), 0.25);
        assert_eq!(left(&Resources { gpus: 0.0, ..need }, &free, &total), 0.0);
        assert_eq!(left(&Resources::default(), &free, &total), 0.0);
    }
}
