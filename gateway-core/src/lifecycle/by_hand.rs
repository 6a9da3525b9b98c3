//! Loads and unloads because somebody says so, whoever asks for the model.

use super::order::{Busy, Said, Shown, end_of_load, said_of};
use super::{Inner, Lifecycle};
use crate::command::{Command, CommandReply};
use crate::link::LinkError;
use crate::names::{ModelId, RunnerId};
use crate::registry::RunnerChange;
use crate::runner::{ModelChange, ModelState, Runner};

/// Why a runner did not load or unload a model that it was told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OrderError {
    /// Requests use the model, or somebody waits for a slot with it. Nothing was sent.
    #[error(
        "`{model}` is in use on runner {runner}; drain the runner or wait, or force it: what uses the model may then fail"
    )]
    InUse {
        /// The runner.
        runner: RunnerId,
        /// The model.
        model: ModelId,
    },
    /// The model is being loaded or unloaded there. Nothing was sent.
    #[error("`{model}` is being loaded or unloaded on runner {runner}; wait until that has ended")]
    UnderWay {
        /// The runner.
        runner: RunnerId,
        /// The model.
        model: ModelId,
    },
    /// The runner said that it cannot: its own words.
    #[error("{0}")]
    Refused(String),
    /// The command did not reach the runner, or its answer did not come back.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl Lifecycle {
    /// Has a runner load a model, whoever else may have it. The fleet shows it as loading meanwhile, so that
    /// requests wait for it instead of having it loaded elsewhere.
    ///
    /// Takes as long as the link lets it. Dropping the future drops the command; the link says what that means
    /// for the runner.
    ///
    /// # Errors
    /// Why it was not loaded.
    pub async fn load(&self, runner: &Runner, model: &ModelId) -> Result<(), OrderError> {
        let command = Command::LoadModel(model.clone());
        self.inner.order(runner, model, command, ModelChange::Loading).await
    }

    /// Has a runner unload a model. From before the command is sent no request begins to use it there.
    ///
    /// A model that is in use stays, unless it is `forced`: requests that use it then go on for as long as the
    /// runner lets them. Takes as long as the link lets it. If the future is dropped early nothing is sent to
    /// the model until the runner has said how it is.
    ///
    /// # Errors
    /// Why it was not unloaded.
    pub async fn unload(&self, runner: &Runner, model: &ModelId, forced: bool) -> Result<(), OrderError> {
        let inner = &self.inner;
        let listed = inner.registry.fleet().current(runner.key()).and_then(|now| {
            let model = now.model(model.as_str())?;
            Some(inner.wanted.is_wanted(now, model))
        });
        if listed == Some(true) && !forced {
            return Err(OrderError::InUse { runner: runner.id().clone(), model: model.clone() });
        }
        let change = if forced { ModelChange::ForcedUnloading } else { ModelChange::Unloading };
        inner.order(runner, model, Command::UnloadModel(model.clone()), change).await
    }
}

impl Inner {
    async fn order(
        self: &std::sync::Arc<Self>,
        runner: &Runner,
        model: &ModelId,
        command: Command,
        change: ModelChange,
    ) -> Result<(), OrderError> {
        let key = runner.key();
        let is_load = change == ModelChange::Loading;
        // Nothing else is begun there meanwhile; what is under way goes on.
        let is_free = self.state().busy.insert(key.clone());
        let _busy = is_free.then(|| Busy { inner: self.clone(), runner: key.clone() });
        let fleet = self.registry.fleet();
        // One that the gateway does not know of is the runner's affair.
        let known = fleet.current(key).and_then(|now| now.model(model.as_str()));
        let model = known.map_or(model, |known| &known.id);
        let shown = match known {
            None => None,
            Some(known) => match Shown::begin(self, key, &known.id, change) {
                None => return Err(self.why_not(runner, model)),
                shown => shown,
            },
        };
        let reply = runner.link().command(command).await;
        let (end, done) = match reply {
            Ok(CommandReply { result, status }) => {
                let said = said_of(status.as_ref(), model);
                if let Some(status) = status {
                    self.registry.update(key, RunnerChange::Status(status));
                }
                let end = match (&result, is_load) {
                    (Err(_), _) => ModelChange::AsReported,
                    (Ok(()), true) => end_of_load(said).unwrap_or(ModelChange::AsReported),
                    (Ok(()), false) => end_of_unload(said),
                };
                (end, result.map_err(OrderError::Refused))
            }
            Err(error) if error.is_unsupported() || error.is_not_sent() => {
                (ModelChange::AsReported, Err(error.into()))
            }
            Err(error) => (ModelChange::Unknown, Err(error.into())),
        };
        if done.is_ok() {
            // Loaded for a purpose that is not ours, or not there any more.
            self.record(key, |record| {
                record.ours.remove(model);
            });
        }
        if let Some(shown) = shown {
            shown.end(end);
        }
        done
    }

    /// Why a model cannot be loaded or unloaded now.
    fn why_not(&self, runner: &Runner, model: &ModelId) -> OrderError {
        let (runner_id, model) = (runner.id().clone(), model.clone());
        let fleet = self.registry.fleet();
        let state = fleet.current(runner.key()).and_then(|now| now.model(model.as_str()));
        match state.map(|model| &model.state) {
            Some(ModelState::Loading { .. } | ModelState::Unloading) => {
                OrderError::UnderWay { runner: runner_id, model }
            }
            _ => OrderError::InUse { runner: runner_id, model },
        }
    }
}

/// What holds of a model that the runner says to have unloaded.
pub(super) fn end_of_unload(said: Said) -> ModelChange {
    match said {
        Said::Nothing => ModelChange::Ended(ModelState::Available),
        // What it says is older than what it has done, or not done yet.
        Said::State(ModelState::Loaded | ModelState::Unloading) => ModelChange::Unknown,
        Said::State(_) | Said::NotListed => ModelChange::AsReported,
    }
}
