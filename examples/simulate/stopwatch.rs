//! What a choice costs, by the wall clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use gateway_core::{Attempt, Balancer, Candidates, Requirements, Reservation, Runner, Score};

/// A strategy, with a stopwatch around its picks.
pub(crate) struct Timed {
    inner: Arc<dyn Balancer>,
    nanos: Mutex<Vec<u64>>,
}

/// Nanoseconds of each pick, sorted, as measured: reading the clock twice is in them.
#[derive(Debug, Clone, Default)]
pub(crate) struct PickTimes(Vec<u64>);

impl Timed {
    pub(crate) fn new(inner: Arc<dyn Balancer>) -> Self {
        Self { inner, nanos: Mutex::default() }
    }

    pub(crate) fn times(&self) -> PickTimes {
        let mut nanos = self.nanos.lock().unwrap_or_else(PoisonError::into_inner).clone();
        nanos.sort_unstable();
        PickTimes(nanos)
    }
}

impl PickTimes {
    /// How many picks there were.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn quantile(&self, q: f64) -> u64 {
        let at = (self.0.len() as f64 * q) as usize;
        self.0.get(at.min(self.0.len().saturating_sub(1))).copied().unwrap_or(0)
    }
}

impl Balancer for Timed {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let start = Instant::now();
        let reservation = self.inner.pick(requirements, candidates);
        let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanos.lock().unwrap_or_else(PoisonError::into_inner).push(took);
        reservation
    }

    fn reads_prompts(&self) -> bool {
        self.inner.reads_prompts()
    }

    fn scores(&self, requirements: &Requirements, runner: &Runner, scores: &mut Vec<Score>) {
        self.inner.scores(requirements, runner, scores);
    }

    fn observe(&self, attempt: &Attempt<'_>) {
        self.inner.observe(attempt);
    }
}
