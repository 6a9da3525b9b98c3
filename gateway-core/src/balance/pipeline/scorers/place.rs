//! What a runner is and what it costs.

use crate::balance::cost_aware::cost;
use crate::pipeline::filters::is_warm;
use crate::pipeline::{Scale, Scene, Scorer};
use crate::router::Requirements;
use crate::runner::Runner;

/// What the request costs on a runner, as [`CostAware`](crate::CostAware) reckons; less is better, in
/// proportion to the dearest candidate. A price that is not known is worth as little as the dearest. Name:
/// `cost`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CostScorer;

impl Scorer for CostScorer {
    fn name(&self) -> &'static str {
        "cost"
    }

    fn score(&self, requirements: &Requirements, runner: &Runner, scene: &Scene) -> Option<f64> {
        let forecast = scene.forecast(requirements, runner);
        Some(cost(requirements, runner, scene.load(), &forecast).unwrap_or(f64::INFINITY))
    }

    fn scale(&self) -> Scale {
        Scale::Less
    }
}

/// 1 for a runner that has the model loaded, 0 for one that would load it on demand. Name: `warm`.
///
/// The built-in router never offers the two together; it is for routers that do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WarmScorer;

impl Scorer for WarmScorer {
    fn name(&self) -> &'static str {
        "warm"
    }

    fn score(&self, requirements: &Requirements, runner: &Runner, _: &Scene) -> Option<f64> {
        is_warm(requirements, runner).map(|warm| f64::from(u8::from(warm)))
    }
}

/// 1 for a runner with a label, such as the gateway's own zone, 0 for others. Name: `label`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelScorer {
    key: String,
    value: String,
}

impl LabelScorer {
    /// Favours those whose label `key` is `value`.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

impl Scorer for LabelScorer {
    fn name(&self) -> &'static str {
        "label"
    }

    fn score(&self, _: &Requirements, runner: &Runner, _: &Scene) -> Option<f64> {
        Some(f64::from(u8::from(runner.spec().labels.get(&self.key) == Some(&self.value))))
    }
}
