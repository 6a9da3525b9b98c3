//! What an engine tells when it is asked, and how often it is asked.

use std::num::NonZeroU32;
use std::time::Duration;

use gateway_core::{LinkError, Model, RunnerSpec, RunnerStatus};

use super::HttpRunners;
use crate::engine::{EngineKind, EngineLink, Learnt};

/// How many slots an engine told of.
pub(super) struct Told {
    /// `None`: the operator has said how many.
    spec: Option<RunnerSpec>,
    slots: Option<NonZeroU32>,
    is_news: bool,
}

impl Told {
    pub(super) fn new(spec: &RunnerSpec) -> Self {
        let spec = spec.slots.is_none().then(|| spec.clone());
        Self { spec, slots: None, is_news: false }
    }

    pub(super) fn slots(&self) -> Option<NonZeroU32> {
        self.slots
    }

    pub(super) fn heard(&mut self, slots: Option<u32>, after_outage: bool) {
        let slots = slots.and_then(NonZeroU32::new);
        // What changes while it runs is not worth a new registration; it may be another engine after an outage.
        if slots.is_some() && slots != self.slots && (self.slots.is_none() || after_outage) {
            (self.slots, self.is_news) = (slots, true);
        }
    }

    pub(super) fn joined(&mut self, spec: &RunnerSpec) {
        self.is_news = false;
        self.spec = self.spec.take().map(|_| spec.clone());
        self.slots = self.slots.or(spec.slots);
    }

    /// With what it is to join anew.
    pub(super) fn news(&mut self) -> Option<RunnerSpec> {
        let spec = self.spec.as_mut().filter(|_| std::mem::take(&mut self.is_news))?;
        spec.slots = self.slots;
        Some(spec.clone())
    }
}

/// How often it is asked unless that is set.
pub(super) fn pace(link: &EngineLink) -> Duration {
    match link.recognised() {
        EngineKind::Neutrino => HttpRunners::CAPACITY_INTERVAL,
        _ => HttpRunners::PROBE_INTERVAL,
    }
}

/// `Ok(Err(…))` holds what the engine itself complained of.
pub(super) async fn probe(
    link: &EngineLink,
    pinned: Option<&[Model]>,
) -> Result<Result<Learnt, String>, LinkError> {
    let Some(models) = pinned else { return link.ask().await };
    // What it has free changes, whatever its models are.
    let mut learnt = match link.recognised() {
        EngineKind::Neutrino => match link.ask().await? {
            Ok(learnt) => learnt,
            Err(problem) => return Ok(Err(problem)),
        },
        _ => match link.alive().await? {
            Ok(()) => Learnt::new(RunnerStatus::serving([])),
            Err(problem) => return Ok(Err(problem)),
        },
    };
    learnt.status.models = models.to_vec();
    Ok(Ok(learnt))
}
