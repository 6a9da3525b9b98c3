use super::choice::{LOOKS, reserve_least};
use super::{Balancer, Candidates, Score};
use crate::router::Requirements;
use crate::runner::{Least, Load, Reservation, Runner};

/// The runner with the smallest share of its slots in use; ties are broken at random.
///
/// The default: right whenever requests differ in length or runners in size. Load is what is counted
/// here plus what the runner reported of others' requests, so a burst between two reports spreads.
///
/// Exact, and yet it need not look at every candidate: each runner has one word on a board, kept up to date by
/// whoever takes or gives back a slot. In fleets of more than 128 the board counts its changes, 64 runners at a
/// time, and only those are looked at again that have changed since the last choice: about a microsecond for
/// ten thousand runners. When two choose at the very same moment, one of them looks at all words.
/// Requests that need more than a model, or are tried again, are chosen for by the slow way, which asks each
/// runner. `explain` shows `load`, the share in use; less is better.
#[derive(Debug, Clone)]
pub struct LeastLoaded {
    assumed_slots: u32,
}

impl LeastLoaded {
    /// Slots that are assumed of a runner that does not say. Four is what llama.cpp's server takes unless
    /// told otherwise (its `--parallel`).
    pub const ASSUMED_SLOTS: u32 = crate::runner::ASSUMED_SLOTS;

    /// Assumes so many slots of a runner that does not say how many it has; at least 1. It is a weight
    /// only, no limit.
    pub fn assuming_slots(slots: u32) -> Self {
        Self { assumed_slots: slots.max(1) }
    }

    /// The share of slots in use. Equal shares are equal numbers: a division rounds the same quotient the same
    /// way.
    fn share(&self, load: &Load) -> f64 {
        let slots = load.slots.map_or(self.assumed_slots, |slots| slots.get());
        f64::from(load.estimate()) / f64::from(slots)
    }
}

impl Default for LeastLoaded {
    fn default() -> Self {
        Self::assuming_slots(Self::ASSUMED_SLOTS)
    }
}

impl Balancer for LeastLoaded {
    fn name(&self) -> &'static str {
        "least-loaded"
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        if self.assumed_slots == Self::ASSUMED_SLOTS {
            // Lost to somebody else, it is looked for anew a few times.
            for _ in 0..LOOKS {
                match candidates.least() {
                    Least::At(at) => {
                        let reserved = candidates.try_reserve(at);
                        if reserved.is_some() {
                            return reserved;
                        }
                    }
                    Least::Nobody => return None,
                    Least::Unclear => break,
                }
            }
        }
        reserve_least(requirements, candidates, |_, load| self.share(load))
    }

    fn scores(&self, _: &Requirements, runner: &Runner, scores: &mut Vec<Score>) {
        scores.push(Score { name: "load", value: self.share(&runner.load()) });
    }
}
