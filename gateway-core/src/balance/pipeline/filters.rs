//! The filters that come with it.

use super::part::{Filter, Scene};
use crate::balance::choice::slots;
use crate::router::Requirements;
use crate::runner::{ModelState, Runner};

/// Keeps runners with a label, such as `zone=eu`. Name: `label`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelFilter {
    key: String,
    value: String,
}

impl LabelFilter {
    /// Keeps those whose label `key` is `value`.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

impl Filter for LabelFilter {
    fn name(&self) -> &'static str {
        "label"
    }

    fn keep(&self, _: &Requirements, runner: &Runner, _: &Scene) -> bool {
        runner.spec().labels.get(&self.key) == Some(&self.value)
    }
}

/// Keeps runners that have the model loaded; everybody, if the request names none. Name: `warm`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WarmFilter;

impl Filter for WarmFilter {
    fn name(&self) -> &'static str {
        "warm"
    }

    fn keep(&self, requirements: &Requirements, runner: &Runner, _: &Scene) -> bool {
        is_warm(requirements, runner).unwrap_or(true)
    }
}

/// Whether the runner has the request's model loaded; `None` if the request names none.
pub(super) fn is_warm(requirements: &Requirements, runner: &Runner) -> Option<bool> {
    let name = requirements.model.as_ref()?;
    Some(runner.model(name.as_str()).is_some_and(|model| model.state == ModelState::Loaded))
}

/// Keeps runners that will be through by the request's deadline, as [`Forecast`](crate::Forecast) reckons;
/// everybody, if it has none. Name: `deadline`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeadlineFilter;

impl Filter for DeadlineFilter {
    fn name(&self) -> &'static str {
        "deadline"
    }

    fn keep(&self, requirements: &Requirements, runner: &Runner, scene: &Scene) -> bool {
        let in_time = |limit: std::time::Duration| {
            scene.forecast(requirements, runner).finish_s() <= limit.as_secs_f64()
        };
        requirements.workload.deadline.is_none_or(in_time)
    }
}

/// Keeps runners that have at most a share of their slots in use, ours and others' requests together. Of a
/// runner that does not say how many it has, four are assumed, as [`LeastLoaded`](crate::LeastLoaded) does.
/// Name: `max-load`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaxLoadFilter {
    share: f64,
}

impl MaxLoadFilter {
    /// Keeps those with at most this share in use, such as 0.8; what is below 0 or no number is taken for 0.
    pub fn new(share: f64) -> Self {
        Self { share: share.max(0.0) }
    }
}

impl Filter for MaxLoadFilter {
    fn name(&self) -> &'static str {
        "max-load"
    }

    fn keep(&self, _: &Requirements, _: &Runner, scene: &Scene) -> bool {
        f64::from(scene.load().estimate()) <= self.share * slots(scene.load())
    }
}
