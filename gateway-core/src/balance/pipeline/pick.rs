//! One pick of a pipeline.

use std::sync::Arc;

use tokio::time::Instant;

use super::picker::Picker;
use super::scale::Range;
use super::{MOST_PARTS, Pipeline, Ranges, Scene};
use crate::balance::Candidates;
use crate::balance::choice::{Choice, LOOKS, has_room, reserve_whoever};
use crate::router::Requirements;
use crate::runner::{Reservation, Runner, Typical};

/// What is the same for all candidates of one pick.
pub(super) struct Look<'p> {
    pub(super) pipeline: &'p Pipeline,
    pub(super) requirements: &'p Requirements,
    pub(super) now: Instant,
    pub(super) typical: Typical,
}

/// What a candidate is chosen by, least first: preferences that it misses, then its total, the other way
/// round.
type Key = (u32, f64);

impl Look<'_> {
    /// So many random places are tried for each runner that is to be drawn: enough where every second one is
    /// eligible.
    const DRAWS: usize = 4;
    /// In a fleet of up to so many, all are looked at if fewer were drawn than wanted: it costs next to nothing.
    const FEW: usize = 64;
    /// So often runners are drawn anew when those that were drawn have become full.
    const TURNS: usize = 2;

    pub(super) fn pick(&self, candidates: &Candidates<'_>) -> Option<Reservation> {
        if let Picker::BestOf(most) = self.pipeline.picker
            && let Some(reservation) = self.best_of(most, candidates)
        {
            return Some(reservation);
        }
        for _ in 0..LOOKS {
            let place = self.choose(|| candidates.iter())?;
            if let Some(reservation) = candidates.try_reserve(place) {
                return Some(reservation);
            }
        }
        reserve_whoever(candidates, |at| {
            candidates.get(at).is_some_and(|runner| self.scene(runner).is_some())
        })
    }

    fn best_of(&self, most: usize, candidates: &Candidates<'_>) -> Option<Reservation> {
        let places = candidates.len();
        if places <= most {
            return None;
        }
        for _ in 0..Self::TURNS {
            let mut drawn = [0; Picker::BEST_OF_MOST];
            let mut count = 0;
            for _ in 0..most * Self::DRAWS {
                let at = fastrand::usize(..places);
                let is_new = !drawn[..count].contains(&at);
                if is_new && candidates.get(at).is_some_and(|runner| self.scene(runner).is_some()) {
                    drawn[count] = at;
                    count += 1;
                }
                if count == most {
                    break;
                }
            }
            if count == 0 || count < most && places <= Self::FEW {
                return None;
            }
            let drawn = &drawn[..count];
            let place = self.choose(|| drawn.iter().filter_map(|at| Some((*at, candidates.get(*at)?))))?;
            if let Some(reservation) = candidates.try_reserve(place) {
                return Some(reservation);
            }
        }
        None
    }

    /// The place of the one to take, among those that have room and are kept.
    fn choose<'r, I>(&self, runners: impl Fn() -> I) -> Option<usize>
    where
        I: Iterator<Item = (usize, &'r Arc<Runner>)>,
    {
        let mut ranges = [Range::EMPTY; MOST_PARTS];
        if self.pipeline.compares {
            for (_, runner) in runners() {
                if let Some(scene) = self.scene(runner) {
                    self.measure(runner, &scene, &mut ranges);
                }
            }
            if let Ok(mut latest) = self.pipeline.latest.try_lock() {
                *latest = ranges;
            }
        }
        let mut choice = Choice::new();
        for (at, runner) in runners() {
            if let Some(scene) = self.scene(runner) {
                choice.offer(at, self.key(runner, &scene, &ranges));
            }
        }
        choice.place()
    }

    /// What the parts see of a runner, if it may be chosen.
    fn scene(&self, runner: &Runner) -> Option<Scene> {
        let load = runner.load_at(self.now);
        let scene = Scene::new(load, self.now, self.typical);
        let fine = has_room(self.requirements, runner, &load)
            && self.pipeline.keeps(self.requirements, runner, &scene);
        fine.then_some(scene)
    }

    fn measure(&self, runner: &Runner, scene: &Scene, ranges: &mut Ranges) {
        for (part, range) in self.pipeline.parts.iter().zip(ranges) {
            if part.scale.compares() {
                range.add(part.scorer.score(self.requirements, runner, scene));
            }
        }
    }

    fn key(&self, runner: &Runner, scene: &Scene, ranges: &Ranges) -> Key {
        let missed = self.pipeline.missed(self.requirements, runner, scene);
        let total = self.pipeline.total(self.requirements, runner, scene, ranges);
        let key = match self.pipeline.picker {
            Picker::Best | Picker::BestOf(_) => -total,
            Picker::Weighted => lot(total),
        };
        (missed, key)
    }
}

/// The least of such lots falls on each candidate as often as its weight is a share of all weights: weighted
/// random sampling over a stream (Efraimidis and Spirakis 2006), whose key u^(1/w) is largest where
/// -ln(u)/w is least.
fn lot(weight: f64) -> f64 {
    if weight > 0.0 { -(1.0 - fastrand::f64()).ln() / weight } else { f64::INFINITY }
}
