use super::choice::{reserve_least, share};
use super::two_choices::reserve_better;
use super::{Balancer, Candidates, Score};
use crate::router::Requirements;
use crate::runner::{Reservation, Runner};

/// Of two candidates drawn at random, the one with the smaller share of its slots in use; either if they are
/// equal.
///
/// Use it in large fleets: it costs the same for ten runners and for ten thousand, and the second choice is
/// what matters. With as many requests as runners, the busiest runner has about `log log n` requests where a
/// random choice gives it `log n / log log n` (Mitzenmacher, "The power of two choices in randomized load
/// balancing", 2001). It also keeps many gateways apart that see the same reports: none of them is sure whom
/// it will look at.
///
/// Full runners are passed over; if eight draws meet nobody who has room, all are looked at and the least
/// loaded is taken, so a free slot is always found. `explain` shows `load`, the share in use; less is better.
#[derive(Debug, Clone, Copy, Default)]
pub struct PowerOfTwo;

impl Balancer for PowerOfTwo {
    fn name(&self) -> &'static str {
        "power-of-two"
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        candidates.sweep();
        reserve_better(candidates, |at| candidates.look(at).map(|look| look.share()))
            .or_else(|| reserve_least(requirements, candidates, |_, load| share(load)))
    }

    fn scores(&self, _: &Requirements, runner: &Runner, scores: &mut Vec<Score>) {
        scores.push(Score { name: "load", value: share(&runner.load()) });
    }
}
