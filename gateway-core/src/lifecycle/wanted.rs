//! Models that requests wait for a slot with: nobody uses them, and yet they must stay.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Inner;
use crate::names::ModelId;
use crate::runner::{Model, Runner};

/// By the names that requests use. Bounded by the requests that wait.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    names: Mutex<HashMap<ModelId, usize>>,
}

impl Wanted {
    fn names(&self) -> MutexGuard<'_, HashMap<ModelId, usize>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody waits for a slot with this model of the runner, under whatever of its names.
    pub(super) fn is_wanted(&self, runner: &Runner, model: &Model) -> bool {
        let names = self.names();
        let same = |other: &&Model| other.local_name() == model.local_name();
        !names.is_empty()
            && (names.contains_key(model.local_name())
                || runner.status().models.iter().filter(same).any(|same| names.contains_key(&same.id)))
    }
}

/// Keeps models in memory for one who waits for a slot. Made by
/// [`Lifecycle::want`](super::Lifecycle::want).
#[must_use = "dropping it lets the models go"]
pub(crate) struct Wants {
    inner: Arc<Inner>,
    models: Vec<ModelId>,
    is_served: bool,
}

impl Wants {
    pub(super) fn new(inner: Arc<Inner>, models: Vec<ModelId>) -> Self {
        let mut names = inner.wanted.names();
        for model in &models {
            *names.entry(model.clone()).or_default() += 1;
        }
        drop(names);
        Self { inner, models, is_served: false }
    }

    /// It has its slot, and uses what it waited for.
    pub(crate) fn served(mut self) {
        self.is_served = true;
    }
}

impl Drop for Wants {
    fn drop(&mut self) {
        let mut names = self.inner.wanted.names();
        let mut is_last = false;
        for model in &self.models {
            if let Some(waiting) = names.get_mut(model) {
                *waiting -= 1;
                if *waiting == 0 {
                    names.remove(model);
                    is_last = true;
                }
            }
        }
        drop(names);
        // Gone without a slot, it leaves a model behind that may make way.
        if is_last && !self.is_served {
            self.inner.call_all();
        }
    }
}
