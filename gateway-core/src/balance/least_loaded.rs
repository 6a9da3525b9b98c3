use tokio::time::Instant;

use super::{Balancer, Candidates};
use crate::router::Requirements;
use crate::runner::{Load, Reservation};

/// The runner with the smallest share of its slots in use; ties are broken at random.
///
/// The default: right whenever requests differ in length or runners in size. Load is what is counted
/// here plus what the runner reported of others' requests, so a burst between two reports spreads.
///
/// Exact, so it looks at every candidate. What it looks at is one word per runner, kept up to date by
/// whoever takes or gives back a slot and laid out in a row, so ten thousand runners are some microseconds.
/// Requests that need more than a model, or are tried again, are chosen for by the slow way, which asks each
/// runner.
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

    /// Load as a share of slots, as a number that can be compared without dividing: requests and slots.
    fn share(&self, load: &Load) -> (u64, u64) {
        let slots = load.slots.map_or(self.assumed_slots, |slots| slots.get());
        (u64::from(load.estimate()), u64::from(slots))
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

    fn pick(&self, _: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let now = Instant::now();
        if self.assumed_slots == Self::ASSUMED_SLOTS
            && let Some(at) = candidates.least(now)
            && let Some(reservation) = candidates.try_reserve(at)
        {
            return Some(reservation);
        }
        // Each turn loses at most one race for a slot, and then that runner is full.
        for _ in 0..=candidates.len() {
            let mut best: Option<(usize, (u64, u64))> = None;
            let mut ties = 1;
            for (at, runner) in candidates.iter() {
                let load = runner.load_at(now);
                if load.is_full() {
                    continue;
                }
                let share = self.share(&load);
                let order = best.map_or(std::cmp::Ordering::Less, |(_, other)| compare(share, other));
                match order {
                    std::cmp::Ordering::Less => (best, ties) = (Some((at, share)), 1),
                    std::cmp::Ordering::Equal => {
                        ties += 1;
                        if fastrand::u32(..ties) == 0 {
                            best = Some((at, share));
                        }
                    }
                    std::cmp::Ordering::Greater => {}
                }
            }
            let (at, _) = best?;
            if let Some(reservation) = candidates.try_reserve(at) {
                return Some(reservation);
            }
        }
        None
    }
}

fn compare(a: (u64, u64), b: (u64, u64)) -> std::cmp::Ordering {
    (a.0 * b.1).cmp(&(b.0 * a.1))
}
