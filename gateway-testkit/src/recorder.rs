//! Hears of every try, and shows that nothing is left behind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gateway_core::{Attempt, Dispatcher, Observer, Outcome, RunnerId};

use crate::engine::MockEngine;

/// An [`Observer`] that remembers how tries ended.
#[derive(Debug, Default)]
pub struct Recorder {
    outcomes: Mutex<HashMap<(RunnerId, Outcome), u64>>,
}

impl Recorder {
    /// A recorder that has heard nothing yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How many tries ended like this, on any runner.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.sum(|_, ended| ended == outcome)
    }

    /// How many tries one runner had.
    pub fn tries_on(&self, runner: &str) -> u64 {
        self.sum(|id, _| id.as_str() == runner)
    }

    /// How many tries there were.
    pub fn tries(&self) -> u64 {
        self.sum(|_, _| true)
    }

    fn sum(&self, wanted: impl Fn(&RunnerId, Outcome) -> bool) -> u64 {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.iter().filter(|((id, outcome), _)| wanted(id, *outcome)).map(|(_, count)| count).sum()
    }
}

impl Observer for Recorder {
    fn attempt(&self, attempt: &Attempt<'_>) {
        let key = (attempt.runner.id().clone(), attempt.outcome);
        *self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
    }
}

/// Waits until every counter is back to zero: the dispatcher's, every runner's reservations, and the work
/// on every engine.
///
/// # Panics
/// Something is left after five seconds; the message says what.
pub async fn assert_all_zero<'a>(dispatcher: &Dispatcher, engines: impl IntoIterator<Item = &'a MockEngine>) {
    let patience = Duration::from_secs(5);
    assert!(
        tokio::time::timeout(patience, dispatcher.idle()).await.is_ok(),
        "{} requests are still under way",
        dispatcher.in_flight()
    );
    for runner in dispatcher.registry().fleet().runners() {
        assert!(
            tokio::time::timeout(patience, runner.idle()).await.is_ok(),
            "{} still has {} reservations",
            runner.key(),
            runner.load().in_flight
        );
    }
    for engine in engines {
        let idle = engine.until(|counts| counts.active() == 0);
        assert!(
            tokio::time::timeout(patience, idle).await.is_ok(),
            "an engine still works: {:?}",
            engine.counts()
        );
    }
}
