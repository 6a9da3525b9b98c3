use tokio::time::Instant;

use super::choice::reserve_least;
use super::predict::{Peers, forecast};
use super::{Balancer, Candidates, Score};
use crate::router::Requirements;
use crate::runner::{Reservation, Runner};

/// The runner that is expected to be through with the request first, as [`Forecast`](crate::Forecast)
/// reckons: prompts ahead, the own prompt, and the likely answer, each at the speed that was measured of the
/// runner.
///
/// Use it where machines or prompts differ much: it knows that one long prompt ahead is more than five short
/// ones, and that a slow machine with nothing to do may still be the later one. Where all are alike,
/// [`LeastLoaded`](crate::LeastLoaded) does as well for less.
///
/// What is promised counts at once, so a burst spreads by itself: each reservation adds its prompt to the
/// runner's backlog. Looks at every candidate, some fifteen words of each. `explain` shows `waiting`,
/// `prefill`, `decode` and `finish` in seconds; less is better.
#[derive(Debug, Default)]
pub struct Predictive {
    peers: Peers,
}

impl Balancer for Predictive {
    fn name(&self) -> &'static str {
        "predictive"
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let now = candidates.now();
        let peers = self.peers.of(candidates, now);
        reserve_least(requirements, candidates, |runner, load| {
            forecast(&requirements.workload, runner, load, peers, now).finish_s()
        })
    }

    fn scores(&self, requirements: &Requirements, runner: &Runner, scores: &mut Vec<Score>) {
        let now = Instant::now();
        let load = runner.load_at(now);
        let forecast = forecast(&requirements.workload, runner, &load, self.peers.latest(), now);
        scores.extend([
            Score { name: "waiting", value: forecast.waiting_s },
            Score { name: "prefill", value: forecast.prefill_s },
            Score { name: "decode", value: forecast.decode_s },
            Score { name: "finish", value: forecast.finish_s() },
        ]);
    }
}
