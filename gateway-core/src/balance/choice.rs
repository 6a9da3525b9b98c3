//! The best of many, found in one look.

use std::sync::Arc;

use super::Candidates;
use crate::router::Requirements;
use crate::runner::{ASSUMED_SLOTS, Load, Reservation, Runner};

/// How often the best is looked for anew after somebody else took it. Then whoever has room will do: many
/// choose at once, and none of their looks is still true.
pub(super) const LOOKS: u32 = 3;

/// The place with the least key of all that were offered, drawn evenly from those that have it.
#[derive(Debug)]
pub(super) struct Choice<K> {
    best: Option<(usize, K)>,
    ties: u32,
}

impl<K: PartialOrd> Choice<K> {
    pub(super) fn new() -> Self {
        Self { best: None, ties: 0 }
    }

    #[inline]
    pub(super) fn offer(&mut self, at: usize, key: K) {
        let is_less = self.best.as_ref().is_none_or(|(_, best)| key < *best);
        if is_less {
            (self.best, self.ties) = (Some((at, key)), 1);
        } else if self.best.as_ref().is_some_and(|(_, best)| key == *best) {
            // The n-th of equals replaces those before it with a chance of 1/n: each ends with the same
            // (reservoir sampling, Vitter 1985).
            self.ties += 1;
            if fastrand::u32(..self.ties) == 0 {
                self.best = Some((at, key));
            }
        }
    }

    pub(super) fn place(&self) -> Option<usize> {
        self.best.as_ref().map(|(at, _)| *at)
    }
}

/// Whether the request could be reserved on a runner that is eligible.
#[inline]
pub(super) fn has_room(requirements: &Requirements, runner: &Runner, load: &Load) -> bool {
    !load.is_full() && requirements.resources.as_ref().is_none_or(|need| runner.has_free(need))
}

/// Reserves a candidate that has room and whose key is the least. Looks at every candidate.
pub(super) fn reserve_least<K: PartialOrd>(
    requirements: &Requirements,
    candidates: &Candidates<'_>,
    key: impl Fn(&Arc<Runner>, &Load) -> K,
) -> Option<Reservation> {
    let now = candidates.now();
    for _ in 0..LOOKS {
        let mut least = Choice::new();
        for (at, runner) in candidates.open() {
            let load = runner.load_at(now);
            if has_room(requirements, runner, &load) {
                least.offer(at, key(runner, &load));
            }
        }
        if let Some(reservation) = candidates.try_reserve(least.place()?) {
            return Some(reservation);
        }
    }
    reserve_whoever(candidates, |_| true)
}

/// Reserves a candidate that has room, drawn evenly from all that do. Looks at every candidate.
pub(super) fn reserve_any(requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
    reserve_least(requirements, candidates, |_, _| ())
}

/// Reserves whoever can be reserved and is `fine`, from a random place on. Each is asked: a runner may refuse
/// for a reason that no look shows.
pub(super) fn reserve_whoever(
    candidates: &Candidates<'_>,
    fine: impl Fn(usize) -> bool,
) -> Option<Reservation> {
    let places = candidates.len();
    let start = if places > 0 { fastrand::usize(..places) } else { 0 };
    let mut round = (start..places).chain(0..start);
    round.find_map(|at| if fine(at) { candidates.try_reserve(at) } else { None })
}

/// Slots of a runner as a weight, assumed if it does not say.
#[inline]
pub(super) fn slots(load: &Load) -> f64 {
    f64::from(load.slots.map_or(ASSUMED_SLOTS, |slots| slots.get()))
}

/// The share of a runner's slots that is in use, by whomever. Equal shares are equal numbers: a division
/// rounds the same quotient the same way.
#[inline]
pub(super) fn share(load: &Load) -> f64 {
    f64::from(load.estimate()) / slots(load)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_are_drawn_evenly_and_the_least_always() {
        let mut counts = [0_u32; 5];
        for _ in 0..9_000 {
            let mut choice = Choice::new();
            for (at, key) in [3.0, 1.0, 2.0, 1.0, 1.0].into_iter().enumerate() {
                choice.offer(at, key);
            }
            counts[choice.place().unwrap()] += 1;
        }
        // 3,000 each, give or take six standard deviations (45 each).
        assert!([1, 3, 4].iter().all(|at| (2_730..=3_270).contains(&counts[*at])), "{counts:?}");
        assert_eq!((counts[0], counts[2]), (0, 0));
        assert_eq!(Choice::<f64>::new().place(), None);
    }
}
