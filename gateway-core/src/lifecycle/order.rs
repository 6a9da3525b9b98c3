//! One order to a runner, and what remains of it if it is given up.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::time::{sleep, timeout};

use super::Inner;
use super::by_hand::end_of_unload;
use super::error::LoadError;
use super::report::Ordered;
use super::spot::Spot;
use super::state::Act;
use crate::command::{Command, CommandReply};
use crate::link::LinkError;
use crate::names::{ModelId, RunnerKey};
use crate::registry::RunnerChange;
use crate::runner::{Model, ModelChange, ModelState, Runner, RunnerStatus};

/// How long a runner stays busy after an order that could not even be given. Who decided that it could looks
/// again then; should the two ever go on disagreeing, they do so at leisure.
const BREATH: Duration = Duration::from_millis(10);

/// The right to load or unload on a runner. Given back when dropped.
pub(super) struct Busy {
    pub(super) inner: Arc<Inner>,
    pub(super) runner: RunnerKey,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.inner.state().busy.remove(&self.runner);
        self.inner.freed_on(&self.runner);
    }
}

/// A change that shows in the fleet. Dropped before it is ended, nobody knows how it ended.
pub(super) struct Shown<'a> {
    inner: &'a Inner,
    runner: &'a RunnerKey,
    model: &'a ModelId,
    ended: bool,
}

impl<'a> Shown<'a> {
    pub(super) fn begin(
        inner: &'a Inner,
        runner: &'a RunnerKey,
        model: &'a ModelId,
        change: ModelChange,
    ) -> Option<Self> {
        inner.change(runner, model, change).then_some(Self { inner, runner, model, ended: false })
    }

    /// `false` if the runner has left meanwhile.
    pub(super) fn end(mut self, change: ModelChange) -> bool {
        self.ended = true;
        self.inner.change(self.runner, self.model, change)
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if !self.ended {
            tracing::info!(runner = %self.runner, model = %self.model, "given up before it was done");
            self.inner.change(self.runner, self.model, ModelChange::Unknown);
        }
    }
}

/// How a command ended, as far as is known here.
enum Told {
    /// It was done.
    Done(Said),
    Refused(String),
    /// It certainly was not done.
    Never(LinkError),
    /// Nobody knows whether it was done.
    Lost(LinkError),
    TimedOut,
    /// The runner left.
    Left,
}

/// What the runner said of the model when the command was done.
pub(super) enum Said {
    Nothing,
    State(ModelState),
    /// It does not list it any more.
    NotListed,
}

/// Makes room and loads. Dropping the future gives the load up: what the fleet shows is taken back, and the
/// link hears no more of it.
pub(super) async fn load(inner: Arc<Inner>, spot: Spot, busy: Busy) -> Result<(), LoadError> {
    // Here, so that it is given back after everything else.
    let _busy = busy;
    let Spot { runner: there, model, victims, .. } = spot;
    let key = there.key().clone();
    let runner = key.id.clone();
    let Some(shown) = Shown::begin(&inner, &key, &model, ModelChange::Loading) else {
        sleep(BREATH).await;
        return Err(LoadError::Gone { runner, model: model.clone() });
    };
    for victim in &victims {
        if !unload(&inner, &there, victim, "evicted").await {
            shown.end(ModelChange::AsReported);
            sleep(BREATH).await;
            return Err(LoadError::NoRoom { runner, model: model.clone() });
        }
    }
    tracing::info!(runner = %key, %model, "a request asks for a model that is not loaded: loading it");
    inner.record(&key, |record| {
        record.ours.insert(model.clone());
    });
    let ordered = Ordered::now(&inner, &key, &model);
    let done = order(&inner, &there, &model, shown).await;
    ordered.ended(&done);
    done
}

/// Gives the order and shows what came of it.
async fn order(inner: &Inner, there: &Runner, model: &ModelId, shown: Shown<'_>) -> Result<(), LoadError> {
    let key = there.key();
    let runner = key.id.clone();
    let limit = inner.rules().policy.load_timeout;
    let error = match tell(inner, there, Command::LoadModel(model.clone()), limit).await {
        Told::Done(said) => match end_of_load(said) {
            Some(change) => {
                inner.record(key, |record| record.succeeded(model, Act::Load));
                if !shown.end(change) {
                    return Err(LoadError::Gone { runner, model: model.clone() });
                }
                tracing::info!(runner = %key, %model, "the model is loaded");
                return Ok(());
            }
            None => LoadError::NotLoaded { runner, model: model.clone() },
        },
        Told::Left => return Err(LoadError::Gone { runner, model: model.clone() }),
        Told::Never(error) if error.is_unsupported() => {
            shown.end(ModelChange::AsReported);
            inner.record(key, |record| record.cannot_load = true);
            return Err(LoadError::Unsupported { runner, model: model.clone() });
        }
        Told::Never(error) | Told::Lost(error) => {
            LoadError::Link { runner, model: model.clone(), source: Arc::new(error) }
        }
        Told::Refused(words) => LoadError::Refused { runner, model: model.clone(), words: words.into() },
        Told::TimedOut => LoadError::TimedOut { runner, model: model.clone(), limit },
    };
    tracing::warn!(runner = %key, %model, %error, "the model was not loaded");
    // The record first: whoever sees the failure must not try again at once.
    inner.record_failure(key, model, Act::Load);
    shown.end(ModelChange::Ended(ModelState::Failed { message: Some(error.to_string()) }));
    Err(error)
}

/// What holds of a model that the runner says to have loaded. `None` if it contradicts itself.
pub(super) fn end_of_load(said: Said) -> Option<ModelChange> {
    match said {
        Said::Nothing => Some(ModelChange::Ended(ModelState::Loaded)),
        // Still loading: it answers before it is done, and will say when it is.
        Said::State(ModelState::Loaded | ModelState::OnDemand | ModelState::Loading { .. }) => {
            Some(ModelChange::AsReported)
        }
        Said::State(_) | Said::NotListed => None,
    }
}

/// Takes a model out of memory that nothing uses. `false` if something does, or the runner did not do it.
/// Dropped early, nothing is sent to the model until the runner has said how it is.
pub(super) async fn unload(inner: &Inner, runner: &Runner, model: &ModelId, why: &'static str) -> bool {
    let key = runner.key();
    // Since it was chosen somebody may have begun to wait for a slot with it.
    let is_wanted = |listed: &Model| inner.wanted.is_wanted(runner, listed);
    if runner.model(model.as_str()).is_some_and(is_wanted) {
        return false;
    }
    // From here on nobody can begin to use it, and nobody does.
    let Some(shown) = Shown::begin(inner, key, model, ModelChange::Unloading) else { return false };
    tracing::info!(runner = %key, %model, why, "unloading the model");
    let limit = inner.rules().policy.unload_timeout;
    let (end, error) = match tell(inner, runner, Command::UnloadModel(model.clone()), limit).await {
        Told::Done(said) => {
            inner.record(key, |record| {
                record.succeeded(model, Act::Unload);
                record.ours.remove(model);
            });
            shown.end(end_of_unload(said));
            return true;
        }
        Told::Left => return false,
        Told::Never(error) => {
            if error.is_unsupported() {
                inner.record(key, |record| record.cannot_unload = true);
            }
            (ModelChange::AsReported, error.to_string())
        }
        Told::Refused(words) => (ModelChange::AsReported, words),
        Told::Lost(error) => (ModelChange::Unknown, error.to_string()),
        Told::TimedOut => (ModelChange::Unknown, format!("not done within {} s", limit.as_secs())),
    };
    tracing::warn!(runner = %key, %model, error, "the model was not unloaded");
    inner.record_failure(key, model, Act::Unload);
    shown.end(end);
    false
}

/// What a status says of a model, by whatever of its names.
pub(super) fn said_of(status: Option<&RunnerStatus>, model: &ModelId) -> Said {
    let Some(status) = status else { return Said::Nothing };
    let by_id = status.models.iter().find(|listed| listed.id == *model);
    match by_id.or_else(|| status.models.iter().find(|listed| listed.local_name() == model)) {
        Some(listed) => Said::State(listed.state.clone()),
        None => Said::NotListed,
    }
}

/// Sends a command, waits for its answer and passes on what the runner says of itself in it.
async fn tell(inner: &Inner, runner: &Runner, command: Command, limit: Duration) -> Told {
    let (Command::LoadModel(model) | Command::UnloadModel(model)) = command.clone() else {
        return Told::Never(LinkError::unsupported(command.name()));
    };
    let answer = pin!(timeout(limit, runner.link().command(command)));
    let answer = match select(answer, pin!(runner.left())).await {
        Either::Left((answer, _)) => answer,
        Either::Right(((), _)) => return Told::Left,
    };
    let CommandReply { result, status } = match answer {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) if error.is_unsupported() || error.is_not_sent() => return Told::Never(error),
        Ok(Err(error)) => return Told::Lost(error),
        Err(_) => return Told::TimedOut,
    };
    let said = said_of(status.as_ref(), &model);
    if let Some(status) = status {
        inner.registry.update(runner.key(), RunnerChange::Status(status));
    }
    result.map_or_else(Told::Refused, |()| Told::Done(said))
}
