//! How long a runner takes.

use crate::pipeline::{Scale, Scene, Scorer};
use crate::router::Requirements;
use crate::runner::Runner;

/// The peak of a runner's time to first byte, times the requests that would be on it; less is better, in
/// proportion to the candidate with the most. Unknown until it was measured. Name: `latency`.
///
/// The product is what Finagle's and Linkerd's peak-EWMA balancers go by: without the requests, all of a burst
/// would go to whoever was quick last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LatencyScorer;

impl Scorer for LatencyScorer {
    fn name(&self) -> &'static str {
        "latency"
    }

    fn score(&self, _: &Requirements, runner: &Runner, scene: &Scene) -> Option<f64> {
        let peak_s = runner.peak_first_byte_s(scene.now())?;
        Some(f64::from(peak_s) * (f64::from(scene.load().estimate()) + 1.0))
    }

    fn scale(&self) -> Scale {
        Scale::Less
    }
}

/// When the request would be through, as [`Forecast`](crate::Forecast) reckons; sooner is better, in proportion
/// to the latest. Name: `finish`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FinishScorer;

impl Scorer for FinishScorer {
    fn name(&self) -> &'static str {
        "finish"
    }

    fn score(&self, requirements: &Requirements, runner: &Runner, scene: &Scene) -> Option<f64> {
        Some(scene.forecast(requirements, runner).finish_s())
    }

    fn scale(&self) -> Scale {
        Scale::Less
    }
}
