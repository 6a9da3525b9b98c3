use super::choice::reserve_least;
use super::{Balancer, Candidates, Score};
use crate::router::Requirements;
use crate::runner::{Reservation, Runner, weight};

/// One after the other, each as often as its weight says, spread as evenly as whole turns can be.
///
/// Use it when runners differ in size and requests are alike, or when an operator wants to say himself how
/// much goes where. A runner's weight is its label `weight` if it has one that is a whole number from 0 to
/// 65,536, and its number of slots otherwise (4 if it does not say). Weight 0 means that it serves when nobody
/// else can.
///
/// As with nginx's smooth weighted round-robin, a runner with weight 5 among two with weight 1 has its turns
/// in between theirs, not in a burst. A whole cycle is exact; in any stretch of picks, however chosen, a
/// runner's turns differ from its share by about two at most, mostly by less than one. Costs one atomic addition and a few divisions, more only where there are many
/// different weights: a walk down a tree that is made once for each change of the fleet. A runner that is full
/// is skipped by taking the next turn; after [`WeightedRoundRobin::TURNS`] of them one who has room is drawn at
/// random, by weight.
///
/// Runners that a router gives without a set ([`Pool::slice`](crate::Pool::slice)) have no turns: they are all
/// drawn by weight. `explain` shows `weight`; more is better.
#[derive(Debug, Clone, Copy, Default)]
pub struct WeightedRoundRobin;

impl WeightedRoundRobin {
    /// How many turns of runners that cannot take the request are passed over before every candidate is looked
    /// at. With nine in ten runners full, that is needed for one pick in five (0.9^16).
    pub const TURNS: u32 = 16;
}

impl Balancer for WeightedRoundRobin {
    fn name(&self) -> &'static str {
        "weighted-round-robin"
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let by_turn = candidates
            .set()
            .and_then(|set| (0..Self::TURNS).find_map(|_| candidates.try_reserve(set.next_by_weight()?)));
        // The least of exponentially distributed times is each one's with a chance in proportion to its rate
        // (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006).
        by_turn.or_else(|| {
            reserve_least(requirements, candidates, |runner, _| {
                -(1.0 - fastrand::f64()).ln() / f64::from(weight(runner.spec()))
            })
        })
    }

    fn scores(&self, _: &Requirements, runner: &Runner, scores: &mut Vec<Score>) {
        scores.push(Score { name: "weight", value: f64::from(weight(runner.spec())) });
    }
}
