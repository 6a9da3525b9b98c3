use tokio::time::Instant;

use super::choice::{reserve_least, share};
use super::two_choices::reserve_better;
use super::{Balancer, Candidates, Score};
use crate::router::Requirements;
use crate::runner::{Load, Reservation, Runner};

/// Of two candidates drawn at random, the one whose answers begin sooner: the peak of its time to first byte,
/// times the requests that would then be on it.
///
/// Use it where runners differ in speed or slow down for reasons that no load figure shows: a throttled
/// machine, a neighbour, a bad network. One slow answer counts at once and is forgotten slowly
/// ([`Measured::DECAY`](crate::Measured::DECAY)), so a runner that has become slow is left alone from its first
/// slow answer on, and tried again after a while. Costs the same for ten runners and for ten thousand.
///
/// The cost function is that of Finagle's `PeakEwma` and Linkerd's balancer, over two random choices as in
/// both. So is what becomes of a runner that has never answered: its latency is unknown, which is neither
/// good nor bad. With nothing under way it is taken before any other, so that it becomes known; with that one
/// request under way it comes after all whose latency is known, so that it is not buried in requests before
/// its first answer (Finagle's penalty on a first probe). When nobody is known, the share of slots in use
/// decides.
///
/// `explain` shows `peak` in seconds, if there is one, and `cost`; less is better.
#[derive(Debug, Clone, Copy, Default)]
pub struct PeakEwma;

/// Less is better.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
struct Cost {
    /// Being probed, and nothing known yet.
    unproven: bool,
    /// Seconds times requests; of unproven runners, the share of slots in use.
    cost: f64,
}

impl Cost {
    /// Of a runner with so many requests, `ours` among them, that are this share of its slots.
    #[inline]
    fn of(peak: Option<f32>, requests: f64, ours: u32, share: f64) -> Self {
        match peak {
            Some(peak) => Self { unproven: false, cost: f64::from(peak) * (requests + 1.0) },
            // Only our own requests will tell how fast it is.
            None if ours == 0 => Self { unproven: false, cost: 0.0 },
            None => Self { unproven: true, cost: share },
        }
    }

    fn under(runner: &Runner, load: &Load, now: Instant) -> Self {
        let requests = f64::from(load.estimate());
        Self::of(runner.peak_first_byte_s(now), requests, load.in_flight, share(load))
    }
}

impl Balancer for PeakEwma {
    fn name(&self) -> &'static str {
        "peak-ewma"
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        candidates.sweep();
        let cost = |at| {
            let look = candidates.look(at)?;
            Some(Cost::of(candidates.peak_s(at), look.requests() as f64, look.in_flight(), look.share()))
        };
        reserve_better(candidates, cost).or_else(|| {
            let now = candidates.now();
            reserve_least(requirements, candidates, |runner, load| Cost::under(runner, load, now))
        })
    }

    fn scores(&self, _: &Requirements, runner: &Runner, scores: &mut Vec<Score>) {
        let now = Instant::now();
        let peak = runner.peak_first_byte_s(now);
        scores.extend(peak.map(|peak| Score { name: "peak", value: f64::from(peak) }));
        let Cost { unproven, cost } = Cost::under(runner, &runner.load_at(now), now);
        scores.push(Score { name: "cost", value: if unproven { f64::INFINITY } else { cost } });
    }
}
