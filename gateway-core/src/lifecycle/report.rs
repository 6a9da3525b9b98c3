//! What observers are told of loads.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::Inner;
use super::error::LoadError;
use crate::names::{ModelId, RunnerKey};

/// How an order to load a model ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LoadEnd {
    /// The model is loaded, or the runner says that it soon will be.
    Loaded,
    /// The runner said that it cannot.
    Refused,
    /// The command did not reach the runner, or its answer did not come back.
    Link,
    /// It took too long.
    TimedOut,
    /// The runner said that it has loaded it, but does not list it so.
    NotLoaded,
    /// The runner takes no such orders.
    Unsupported,
    /// The runner left.
    Gone,
    /// Nobody waited for it any more.
    GivenUp,
}

impl LoadEnd {
    /// Every end, for whoever prepares a counter for each.
    pub const ALL: [Self; 8] = [
        Self::Loaded,
        Self::Refused,
        Self::Link,
        Self::TimedOut,
        Self::NotLoaded,
        Self::Unsupported,
        Self::Gone,
        Self::GivenUp,
    ];

    /// The word for it in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Refused => "refused",
            Self::Link => "link",
            Self::TimedOut => "timed_out",
            Self::NotLoaded => "not_loaded",
            Self::Unsupported => "unsupported",
            Self::Gone => "gone",
            Self::GivenUp => "given_up",
        }
    }

    fn of(done: &Result<(), LoadError>) -> Self {
        match done {
            Ok(()) => Self::Loaded,
            Err(LoadError::Refused { .. }) => Self::Refused,
            Err(LoadError::Link { .. }) => Self::Link,
            Err(LoadError::TimedOut { .. }) => Self::TimedOut,
            Err(LoadError::NotLoaded { .. }) => Self::NotLoaded,
            Err(LoadError::Unsupported { .. }) => Self::Unsupported,
            Err(LoadError::Gone { .. } | LoadError::NoRoom { .. } | LoadError::Nobody { .. }) => Self::Gone,
        }
    }
}

impl fmt::Display for LoadEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One order to a runner to load a model because requests ask for it. What admins order is not among these.
#[derive(Debug)]
#[non_exhaustive]
pub struct ModelLoad<'a> {
    /// The runner.
    pub runner: &'a RunnerKey,
    /// The model, by the name that clients use.
    pub model: &'a ModelId,
    /// From the order to its end; making room before it is not counted.
    pub duration: Duration,
    /// How it ended.
    pub end: LoadEnd,
}

/// Tells the observers of one order, also if it is given up.
pub(super) struct Ordered<'a> {
    inner: &'a Inner,
    runner: &'a RunnerKey,
    model: &'a ModelId,
    since: Instant,
    end: LoadEnd,
}

impl<'a> Ordered<'a> {
    pub(super) fn now(inner: &'a Inner, runner: &'a RunnerKey, model: &'a ModelId) -> Self {
        Self { inner, runner, model, since: Instant::now(), end: LoadEnd::GivenUp }
    }

    pub(super) fn ended(mut self, done: &Result<(), LoadError>) {
        self.end = LoadEnd::of(done);
    }
}

impl Drop for Ordered<'_> {
    fn drop(&mut self) {
        let Self { inner, runner, model, since, end } = *self;
        let load = ModelLoad { runner, model, duration: since.elapsed(), end };
        inner.rules().observers.iter().for_each(|observer| observer.loaded(&load));
    }
}
