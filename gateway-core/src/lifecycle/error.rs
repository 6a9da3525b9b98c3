use std::sync::Arc;
use std::time::Duration;

use crate::link::LinkError;
use crate::names::{ModelId, RunnerId};

/// Why a model was not loaded. The same for all who waited for one load, so it is cheap to clone.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The runner said that it cannot.
    #[error("runner {runner} could not load `{model}`: {words}")]
    Refused {
        /// The runner.
        runner: RunnerId,
        /// The model.
        model: ModelId,
        /// Its own words.
        words: Arc<str>,
    },
    /// The command did not reach the runner, or its answer did not come back.
    #[error("runner {runner} could not be told to load `{model}`")]
    Link {
        /// The runner.
        runner: RunnerId,
        /// The model.
        model: ModelId,
        /// What went wrong.
        #[source]
        source: Arc<LinkError>,
    },
    /// It took too long.
    #[error("runner {runner} did not load `{model}` within {} s; raise the time limit if it needs longer", limit.as_secs())]
    TimedOut {
        /// The runner.
        runner: RunnerId,
        /// The model.
        model: ModelId,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The runner said that it has loaded it, but does not list it as loaded.
    #[error("runner {runner} said that it has loaded `{model}` but does not list it so; see what it reports")]
    NotLoaded {
        /// The runner.
        runner: RunnerId,
        /// The model.
        model: ModelId,
    },
    /// The runner cannot be told to load models.
    #[error("runner {runner} loads no models by command; load `{model}` there by other means")]
    Unsupported {
        /// The runner.
        runner: RunnerId,
        /// The model.
        model: ModelId,
    },
    /// The runner left, or another order for the model was given meanwhile.
    #[error("runner {runner} went away or got another order while it was to load `{model}`")]
    Gone {
        /// The runner.
        runner: RunnerId,
        /// The model.
        model: ModelId,
    },
    /// What was to be evicted is in use again. Waiting goes on by itself.
    #[error("runner {runner} has no room for `{model}` any more")]
    NoRoom {
        /// The runner.
        runner: RunnerId,
        /// The model.
        model: ModelId,
    },
    /// Nobody is left who could load it.
    #[error("no runner can load `{model}` now")]
    Nobody {
        /// The model.
        model: ModelId,
    },
}

impl LoadError {
    /// Whether it says nothing of the model or the runner: the next look decides anew.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Gone { .. } | Self::NoRoom { .. })
    }
}
