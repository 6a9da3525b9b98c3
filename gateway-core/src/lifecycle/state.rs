//! What is remembered of loads under way, of those who wait, and of what runners failed at.

use std::collections::{HashMap, HashSet};

use futures_util::future::{BoxFuture, Shared};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::error::LoadError;
use crate::balance::Tried;
use crate::fleet::Fleet;
use crate::names::{ModelId, RunnerKey};
use crate::retry::Backoff;
use crate::router::Requirements;

/// A load, driven by whoever waits for it and by nobody else.
pub(super) type Work = Shared<BoxFuture<'static, Result<(), LoadError>>>;

/// What somebody waits for.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) model: ModelId,
    pub(super) requirements: Requirements,
    pub(super) tried: Vec<Tried>,
    /// Who asked first has the lower number.
    pub(super) number: u64,
    /// Whether it wants nothing but the model, on whatever runner.
    pub(super) is_plain: bool,
    /// It is to look again.
    pub(super) call: Notify,
}

impl Ask {
    pub(super) fn new(model: ModelId, requirements: &Requirements, tried: &[Tried], number: u64) -> Self {
        let is_plain = tried.is_empty() && requirements.is_model_only();
        let (requirements, tried) = (requirements.clone(), tried.to_vec());
        Self { model, requirements, tried, number, is_plain, call: Notify::new() }
    }
}

/// A load, from its start until the last who waited for it has let go of it.
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) runner: RunnerKey,
    /// The model's name on the runner.
    pub(super) local: ModelId,
    pub(super) holders: u32,
    pub(super) work: Work,
}

/// Bounded by the requests that wait (jobs) and by the fleet (the rest).
#[derive(Default)]
pub(super) struct State {
    pub(super) next: u64,
    pub(super) jobs: Vec<Job>,
    /// Runners on which something is loaded or unloaded: one thing at a time.
    pub(super) busy: HashSet<RunnerKey>,
    records: HashMap<RunnerKey, Record>,
}

/// What is known of one registration.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) cannot_load: bool,
    pub(super) cannot_unload: bool,
    /// By canonical name: loaded by this gateway, or told to.
    pub(super) ours: HashSet<ModelId>,
    failed: HashMap<(ModelId, Act), Failure>,
}

/// What can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Act {
    Load,
    Unload,
}

#[derive(Debug, Clone, Copy)]
struct Failure {
    in_a_row: u32,
    until: Instant,
}

impl State {
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Whether somebody who waited for this model to be loaded has not yet had his turn.
    pub(super) fn is_held(&self, runner: &RunnerKey, local: &ModelId) -> bool {
        self.jobs.iter().any(|job| job.runner == *runner && job.local == *local)
    }

    pub(super) fn record(&self, runner: &RunnerKey) -> Option<&Record> {
        self.records.get(runner)
    }

    /// The record to write to. Forgets runners that have left when there are too many of them.
    pub(super) fn record_mut(&mut self, runner: &RunnerKey, fleet: &Fleet) -> &mut Record {
        const SPARE: usize = 16;
        if self.records.len() > 2 * fleet.runners().len() + SPARE {
            self.records.retain(|key, _| fleet.current(key).is_some());
        }
        let record = self.records.entry(runner.clone()).or_default();
        if let Some(runner) = fleet.current(runner) {
            let is_known = |name: &ModelId| runner.model(name.as_str()).is_some();
            let limit = 2 * runner.status().models.len() + SPARE;
            if record.ours.len() > limit {
                record.ours.retain(is_known);
            }
            if record.failed.len() > 2 * limit {
                record.failed.retain(|(name, _), _| is_known(name));
            }
        }
        record
    }
}

impl Record {
    /// Until when the runner is spared this.
    pub(super) fn spared_until(&self, model: &ModelId, act: Act, now: Instant) -> Option<Instant> {
        let failure = self.failed.get(&(model.clone(), act))?;
        (failure.until > now).then_some(failure.until)
    }

    pub(super) fn failed(&mut self, model: &ModelId, act: Act, backoff: &Backoff, now: Instant) {
        let in_a_row = self.failed.get(&(model.clone(), act)).map_or(0, |failure| failure.in_a_row);
        let until = now.checked_add(backoff.pause(in_a_row)).unwrap_or(now);
        self.failed.insert((model.clone(), act), Failure { in_a_row: in_a_row.saturating_add(1), until });
    }

    pub(super) fn succeeded(&mut self, model: &ModelId, act: Act) {
        self.failed.remove(&(model.clone(), act));
    }
}
