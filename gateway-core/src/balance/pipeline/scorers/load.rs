//! How busy a runner is.

use crate::balance::choice::slots;
use crate::pipeline::{Scale, Scene, Scorer};
use crate::router::Requirements;
use crate::runner::{ASSUMED_SLOTS, Runner};

/// The share of a runner's slots that is free; requests of others, as reported while that is fresh, take
/// slots too. Name: `load`.
///
/// A runner that does not say how many slots it has counts as having four, or one more than it has requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoadScorer;

impl Scorer for LoadScorer {
    fn name(&self) -> &'static str {
        "load"
    }

    fn score(&self, _: &Requirements, _: &Runner, scene: &Scene) -> Option<f64> {
        let taken = scene.load().estimate();
        let slots = match scene.load().slots {
            Some(slots) => slots.get(),
            // So that it is never full, and still the less free the more it has.
            None => ASSUMED_SLOTS.max(taken.saturating_add(1)),
        };
        Some((f64::from(slots) - f64::from(taken)) / f64::from(slots))
    }
}

/// Requests that wait inside the engine: as it last reported, and those sent there since; fewer are better,
/// in proportion to the candidate with the most. Unknown where there is no fresh report. Name: `queue`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueScorer;

impl Scorer for QueueScorer {
    fn name(&self) -> &'static str {
        "queue"
    }

    fn score(&self, _: &Requirements, _: &Runner, scene: &Scene) -> Option<f64> {
        let queued = scene.load().queued.filter(|_| scene.load().is_fresh())?;
        Some(f64::from(queued))
    }

    fn scale(&self) -> Scale {
        Scale::Less
    }
}

/// Tokens, of prompts and likely answers, that our own requests keep a runner busy with, for each of its slots
/// (four, if it does not say); fewer are better, in proportion to the candidate with the most. Unknown of a
/// runner whose requests did not say. Name: `tokens`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokensScorer;

impl Scorer for TokensScorer {
    fn name(&self) -> &'static str {
        "tokens"
    }

    fn score(&self, _: &Requirements, _: &Runner, scene: &Scene) -> Option<f64> {
        let load = scene.load();
        let said_nothing = load.tokens == 0 && load.in_flight > 0;
        (!said_nothing).then(|| load.tokens as f64 / slots(load))
    }

    fn scale(&self) -> Scale {
        Scale::Less
    }
}
