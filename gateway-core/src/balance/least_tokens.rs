use std::sync::atomic::{AtomicU32, Ordering};

use super::choice::{reserve_least, share, slots};
use super::{Balancer, Candidates, Score};
use crate::dispatch::Attempt;
use crate::router::Requirements;
use crate::runner::{Load, Reservation, Runner};

/// The runner that has the least tokens before it, this request's included, for its slots and its speed; among
/// equals the one with the smallest share of slots in use, then any.
///
/// Use it where requests differ much in length: ten short ones are less work than one long one, and the number
/// of requests does not show it. Tokens are those of prompts and likely answers
/// ([`Workload::tokens`](crate::Workload::tokens)) as counted here from reservation to end; what others send to
/// the runner is seen in the ties only, for reports do not speak of tokens. Where requests do not say how long
/// they are, this is [`LeastLoaded`](crate::LeastLoaded).
///
/// Speed is the measured time between two chunks of an answer
/// ([`Measured::chunk_interval`](crate::Measured::chunk_interval)). A runner of which it is not known is taken
/// for a typical one. Looks at every candidate. `explain` shows `tokens` outstanding and `cost`, tokens per
/// slot weighted by speed; less is better.
#[derive(Debug, Default)]
pub struct LeastTokens {
    /// Time between chunks in seconds over all runners, as `f32` bits; 0: nothing measured yet.
    typical: AtomicU32,
}

impl LeastTokens {
    /// How much one answer counts against all before it in what is typical: one in 64, so that the answers of
    /// one slow runner do not move it.
    pub const WEIGHT: f32 = 1.0 / 64.0;

    fn typical(&self) -> Option<f32> {
        let bits = self.typical.load(Ordering::Relaxed);
        (bits != 0).then(|| f32::from_bits(bits))
    }

    fn cost(&self, own: u32, runner: &Runner, load: &Load, typical: Option<f32>) -> f64 {
        // While nothing is known of anybody, all are equal.
        let slowness = match (runner.chunk_interval_s(), typical) {
            (Some(interval), Some(typical)) => f64::from(interval / typical),
            _ => 1.0,
        };
        (load.tokens as f64 + f64::from(own)) * slowness / slots(load)
    }
}

impl Balancer for LeastTokens {
    fn name(&self) -> &'static str {
        "least-tokens"
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let own = requirements.workload.tokens();
        let typical = self.typical();
        reserve_least(requirements, candidates, |runner, load| {
            (self.cost(own, runner, load, typical), share(load))
        })
    }

    fn scores(&self, requirements: &Requirements, runner: &Runner, scores: &mut Vec<Score>) {
        let load = runner.load();
        let cost = self.cost(requirements.workload.tokens(), runner, &load, self.typical());
        scores.push(Score { name: "tokens", value: load.tokens as f64 });
        scores.push(Score { name: "cost", value: cost });
    }

    fn observe(&self, attempt: &Attempt<'_>) {
        let Some(interval) = attempt.runner.chunk_interval_s() else { return };
        let _ = self.typical.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
            let old = f32::from_bits(bits);
            let next = if bits == 0 { interval } else { old + (interval - old) * Self::WEIGHT };
            Some(next.to_bits())
        });
    }
}
