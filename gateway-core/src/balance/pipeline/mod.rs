//! Strategies put together from parts: *filters → weighted scorers → picker*.
//!
//! A [`Pipeline`] is a [`Balancer`] like any other. [`Filter`]s say who is left out, [`Scorer`]s how good the
//! others are, each with a weight, and the [`Picker`] takes one by the sum. Both traits are small, so that a
//! part of your own is a few lines:
//!
//! ```
//! use gateway_core::pipeline::{LoadScorer, Picker, Pipeline, Scene, Scorer};
//! use gateway_core::{Requirements, Runner};
//!
//! /// Prefers racks with low numbers.
//! struct LowRack;
//!
//! impl Scorer for LowRack {
//!     fn name(&self) -> &'static str {
//!         "low-rack"
//!     }
//!     fn score(&self, _: &Requirements, runner: &Runner, _: &Scene) -> Option<f64> {
//!         let rack: f64 = runner.spec().labels.get("rack")?.parse().ok()?;
//!         Some(1.0 / (1.0 + rack))
//!     }
//! }
//!
//! let strategy = Pipeline::builder("my-mix")
//!     .scorer(LoadScorer, 2.0)
//!     .scorer(LowRack, 1.0)
//!     .picker(Picker::Best)
//!     .build()?;
//! # Ok::<(), gateway_core::pipeline::PipelineError>(())
//! ```
//!
//! A pipeline of built-in parts can be written in configuration as well: [`PipelineSpec`].

mod builder;
mod filters;
mod part;
mod pick;
mod picker;
mod scale;
mod scorers;
mod spec;

pub use builder::{PipelineBuilder, PipelineError};
pub use filters::{DeadlineFilter, LabelFilter, MaxLoadFilter, WarmFilter};
pub use part::{Filter, Scene, Scorer};
pub use picker::Picker;
pub use scale::Scale;
pub use scorers::{
    CostScorer, FinishScorer, LabelScorer, LatencyScorer, LoadScorer, PrefixScorer, QueueScorer,
    SessionScorer, TokensScorer, WarmScorer,
};
pub use spec::{FilterName, FilterSpec, PipelineSpec, ScorerName, ScorerSpec};

use std::fmt;
use std::sync::Mutex;

use tokio::time::Instant;

use super::predict::Peers;
use super::{Balancer, Candidates, Score};
use crate::dispatch::Attempt;
use crate::router::Requirements;
use crate::runner::{Reservation, Runner};
use pick::Look;
use scale::Range;

/// The most scorers, and the most filters, that a pipeline may have: what is found out about the candidates
/// is kept on the stack.
const MOST_PARTS: usize = 16;

/// A strategy put together from parts; see the [module](self).
///
/// How a runner is chosen among those that are eligible and have room:
///
/// 1. Those that a filter does not keep are out. If nobody is left, nobody is picked.
/// 2. A *preference* is a filter that never leaves nobody: who satisfies the first goes before all who do not,
///    whatever the scores; among those who are equal in that, the second decides, and so on. Mind that a preferred runner which does not say how many
///    slots it has never has too little room; to weigh a wish against load, score it.
/// 3. Each scorer's value is brought between 0 and 1 ([`Scale`]), and the sum of all, by their weights, is the
///    total.
/// 4. The [`Picker`] takes one by the total. Equals are drawn evenly.
///
/// Costs a look at every candidate and a call of every part for each, and another look beforehand if a scorer
/// compares; [`Picker::BestOf`] looks at so many only, however large the fleet. Allocates nothing.
///
/// `explain` shows each filter and preference (1: kept, 0: not), each scorer's value between 0 and 1, and the
/// `total`; more is better. What compares, compares with the candidates of the latest pick.
pub struct Pipeline {
    name: &'static str,
    filters: Vec<Box<dyn Filter>>,
    preferences: Vec<Box<dyn Filter>>,
    parts: Vec<Part>,
    picker: Picker,
    /// Whether a scorer compares the candidates.
    compares: bool,
    peers: Peers,
    /// What the latest pick found out, for `explain`. Nobody ever waits for it.
    latest: Mutex<Ranges>,
}

/// A scorer and how much it counts.
struct Part {
    scorer: Box<dyn Scorer>,
    /// As a share of all weights.
    weight: f64,
    scale: Scale,
}

type Ranges = [Range; MOST_PARTS];

impl Pipeline {
    /// Starts a pipeline with that name, which is shown in logs and `x-router-reason`: visible ASCII.
    pub fn builder(name: &'static str) -> PipelineBuilder {
        PipelineBuilder::new(name)
    }

    fn total(&self, requirements: &Requirements, runner: &Runner, scene: &Scene, ranges: &Ranges) -> f64 {
        self.parts
            .iter()
            .zip(ranges)
            .map(|(part, range)| part.worth(requirements, runner, scene, range))
            .sum()
    }

    fn keeps(&self, requirements: &Requirements, runner: &Runner, scene: &Scene) -> bool {
        self.filters.iter().all(|filter| filter.keep(requirements, runner, scene))
    }

    /// Which preferences are not met, one bit each, the first above all others.
    fn missed(&self, requirements: &Requirements, runner: &Runner, scene: &Scene) -> u32 {
        let missed = |wanted: &dyn Filter| u32::from(!wanted.keep(requirements, runner, scene));
        self.preferences.iter().fold(0, |bits, wanted| bits << 1 | missed(&**wanted))
    }
}

impl Part {
    /// What it adds to the total.
    fn worth(&self, requirements: &Requirements, runner: &Runner, scene: &Scene, range: &Range) -> f64 {
        if self.weight == 0.0 {
            return 0.0;
        }
        self.weight * self.scale.worth(self.scorer.score(requirements, runner, scene), range)
    }
}

impl Balancer for Pipeline {
    fn name(&self) -> &'static str {
        self.name
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let now = candidates.now();
        let look = Look { pipeline: self, requirements, now, typical: self.peers.of(candidates, now) };
        let reservation = look.pick(candidates)?;
        let chosen =
            |reservation, part: &Part| -> Reservation { part.scorer.chosen(requirements, reservation) };
        Some(self.parts.iter().fold(reservation, chosen))
    }

    fn reads_prompts(&self) -> bool {
        self.parts.iter().any(|part| part.scorer.reads_prompts())
    }

    fn scores(&self, requirements: &Requirements, runner: &Runner, scores: &mut Vec<Score>) {
        let now = Instant::now();
        let scene = Scene::new(runner.load_at(now), now, self.peers.latest());
        let ranges = *self.latest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for filter in self.filters.iter().chain(&self.preferences) {
            let kept = filter.keep(requirements, runner, &scene);
            scores.push(Score { name: filter.name(), value: f64::from(u8::from(kept)) });
        }
        for (part, range) in self.parts.iter().zip(&ranges) {
            let value = part.scale.worth(part.scorer.score(requirements, runner, &scene), range);
            scores.push(Score { name: part.scorer.name(), value });
        }
        let total = self.total(requirements, runner, &scene, &ranges);
        scores.push(Score { name: "total", value: total });
    }

    fn observe(&self, attempt: &Attempt<'_>) {
        self.parts.iter().for_each(|part| part.scorer.observe(attempt));
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names =
            |filters: &[Box<dyn Filter>]| filters.iter().map(|filter| filter.name()).collect::<Vec<_>>();
        let weights = self.parts.iter().map(|part| (part.scorer.name(), part.weight)).collect::<Vec<_>>();
        f.debug_struct("Pipeline")
            .field("name", &self.name)
            .field("filters", &names(&self.filters))
            .field("preferences", &names(&self.preferences))
            .field("scorers", &weights)
            .field("picker", &self.picker)
            .finish_non_exhaustive()
    }
}
