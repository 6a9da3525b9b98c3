use std::sync::Arc;

use tokio::time::Instant;

use super::choice::{Choice, LOOKS, has_room, reserve_whoever, slots};
use super::predict::{Forecast, Peers, forecast};
use super::{Balancer, Candidates, Score};
use crate::router::Requirements;
use crate::runner::{Load, Reservation, Runner, Typical};

/// The cheapest runner that will be through with the request by its deadline; if none will, the one that is
/// through soonest.
///
/// Use it in a fleet of machines at different prices, with [`Workload::deadline`](crate::Workload::deadline)
/// set where time matters. Without a deadline every runner is in time, and the cheap ones are filled to
/// their last slot first: give such runners slots.
///
/// What a request costs on a runner is its [`Price`](crate::Price) for the tokens, prompt and likely answer,
/// or for the time that it holds one slot, waiting not counted. When it is through, says
/// [`Forecast`](crate::Forecast). Costs within [`TOLERANCE`](CostAware::TOLERANCE) of the least count as
/// equal, and among those the soonest is taken, so that runners at the same price share the work.
///
/// **A price that is not known** is neither nothing nor a reason to refuse: such a runner comes after every
/// one whose price is known and that is in time.
///
/// Looks at every candidate, twice. The reason that a choice is shown with is `cheapest` or, when the deadline
/// will be missed, `soonest`. `explain` shows `cost` in the currency of the prices (left out if not known)
/// and `finish` in seconds; less is better.
#[derive(Debug, Default)]
pub struct CostAware {
    peers: Peers,
}

/// What a runner has to offer.
struct Offer {
    /// Infinite if not known.
    cost: f64,
    finish_s: f64,
}

impl CostAware {
    /// By how much a cost may exceed the least and still count as equal: what is measured of speeds wavers by
    /// about as much, and machines of one price should not be told apart by that. A judgement.
    pub const TOLERANCE: f64 = 0.1;
}

/// What a request costs on a runner with that forecast; `None` if the price is not known.
pub(super) fn cost(
    requirements: &Requirements,
    runner: &Runner,
    load: &Load,
    forecast: &Forecast,
) -> Option<f64> {
    let workload = &requirements.workload;
    let prompt = workload.prompt_tokens.unwrap_or(Forecast::PROMPT);
    let answer = workload.max_tokens.map_or(Forecast::ANSWER, |_| workload.likely_answer());
    let tokens = f64::from(prompt) + f64::from(answer);
    Some(runner.price()?.of_request(forecast.busy_s(), slots(load), tokens))
}

fn offer(
    requirements: &Requirements,
    runner: &Arc<Runner>,
    load: &Load,
    peers: Typical,
    now: Instant,
) -> Offer {
    let forecast = forecast(&requirements.workload, runner, load, peers, now);
    let cost = cost(requirements, runner, load, &forecast).unwrap_or(f64::INFINITY);
    Offer { cost, finish_s: forecast.finish_s() }
}

impl Balancer for CostAware {
    fn name(&self) -> &'static str {
        "cost-aware"
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let now = candidates.now();
        let peers = self.peers.of(candidates, now);
        let deadline_s = requirements.workload.deadline.map_or(f64::INFINITY, |limit| limit.as_secs_f64());
        let offers = || {
            candidates.iter().filter_map(|(at, runner)| {
                let load = runner.load_at(now);
                has_room(requirements, runner, &load)
                    .then(|| (at, offer(requirements, runner, &load, peers, now)))
            })
        };
        for _ in 0..LOOKS {
            let mut least: Option<f64> = None;
            let mut soonest = Choice::new();
            for (at, offer) in offers() {
                soonest.offer(at, offer.finish_s);
                if offer.finish_s <= deadline_s {
                    least = Some(least.map_or(offer.cost, |least| least.min(offer.cost)));
                }
            }
            let mut cheapest = Choice::new();
            if let Some(least) = least {
                // Whoever is late is later than one that is in time, and is not chosen.
                let most = least * (1.0 + Self::TOLERANCE);
                offers()
                    .filter(|(_, offer)| offer.cost <= most)
                    .for_each(|(at, offer)| cheapest.offer(at, offer.finish_s));
            }
            let (at, reason) = match cheapest.place() {
                Some(at) => (at, "cheapest"),
                None => (soonest.place()?, "soonest"),
            };
            if let Some(reservation) = candidates.try_reserve(at) {
                return Some(reservation.because(reason));
            }
        }
        reserve_whoever(candidates, |_| true)
    }

    fn scores(&self, requirements: &Requirements, runner: &Runner, scores: &mut Vec<Score>) {
        let now = Instant::now();
        let load = runner.load_at(now);
        let forecast = forecast(&requirements.workload, runner, &load, self.peers.latest(), now);
        let cost = cost(requirements, runner, &load, &forecast);
        scores.extend(cost.map(|value| Score { name: "cost", value }));
        scores.push(Score { name: "finish", value: forecast.finish_s() });
    }
}
