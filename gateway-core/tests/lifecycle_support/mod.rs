//! Runners with models on disk, and a dispatcher that has them loaded.

#![allow(dead_code, unreachable_pub)]

use std::sync::Arc;
use std::time::Duration;

use gateway_core::{
    CapabilityRouter, Command, Dispatcher, Health, HealthPolicy, InMemoryRegistry, Lifecycle,
    LifecyclePolicy, Model, ModelId, ModelState, Registry, Requirements, Reservation, ResourceReport,
    Resources, RunnerChange, RunnerId, RunnerKey, RunnerSpec, RunnerStatus,
};
use gateway_testkit::{CommandScript, MockEngine, Script};

/// How long a load takes unless a test says otherwise.
pub const LOAD: Duration = Duration::from_secs(20);

pub fn model(name: &str) -> ModelId {
    ModelId::new(name).unwrap()
}

pub fn wants(name: &str) -> Requirements {
    Requirements::model(model(name))
}

pub fn spec(id: &str) -> RunnerSpec {
    RunnerSpec::new(RunnerId::new(id).unwrap())
}

pub fn on_disk(name: &str) -> Model {
    Model::new(model(name), ModelState::Available)
}

pub fn loaded(name: &str) -> Model {
    Model::loaded(model(name))
}

pub fn sized(mut model: Model, gb: u64) -> Model {
    model.size_bytes = Some(gb * 1_000_000_000);
    model
}

pub fn healthy(models: impl IntoIterator<Item = Model>) -> RunnerStatus {
    RunnerStatus { health: Health::Healthy, models: models.into_iter().collect(), ..RunnerStatus::default() }
}

pub fn with_memory(mut status: RunnerStatus, total: f64, free: f64) -> RunnerStatus {
    let memory = |memory_gb| Some(Resources { memory_gb, ..Resources::default() });
    status.resources =
        ResourceReport { total: memory(total), available: memory(free), ..ResourceReport::default() };
    status
}

pub fn load(name: &str) -> Command {
    Command::LoadModel(model(name))
}

pub fn unload(name: &str) -> Command {
    Command::UnloadModel(model(name))
}

/// An engine that loads in [`LOAD`], unloads at once and answers `fine`.
pub fn engine() -> MockEngine {
    scripted(|command| match command {
        Command::LoadModel(_) => CommandScript::done().after(LOAD),
        _ => CommandScript::done(),
    })
}

pub fn scripted(script: impl Fn(&Command) -> CommandScript + Send + Sync + 'static) -> MockEngine {
    let engine = MockEngine::new(|_| Script::text("fine"));
    engine.script_commands(script);
    engine
}

/// Waits until a command has begun.
pub async fn told(engine: &MockEngine, commands: u64) {
    engine.until_commands(|counts| counts.started >= commands).await;
}

pub struct World {
    pub registry: Arc<InMemoryRegistry>,
    pub dispatcher: Dispatcher,
}

pub fn world(policy: LifecyclePolicy) -> World {
    let registry = Arc::new(InMemoryRegistry::new());
    let dispatcher = Dispatcher::builder(registry.clone()).lifecycle(policy).build();
    World { registry, dispatcher }
}

impl World {
    pub fn join(&self, id: &str, models: impl IntoIterator<Item = Model>, engine: &MockEngine) -> RunnerKey {
        self.registry.join(spec(id), healthy(models), engine.link())
    }

    pub fn lifecycle(&self) -> &Lifecycle {
        self.dispatcher.lifecycle()
    }

    pub fn state(&self, runner: &str, name: &str) -> ModelState {
        let fleet = self.registry.fleet();
        fleet.runner(runner).unwrap().model(name).unwrap().state.clone()
    }

    pub fn say(&self, runner: &RunnerKey, status: RunnerStatus) {
        assert!(self.registry.update(runner, RunnerChange::Status(status)));
    }

    /// Holds a slot of a runner, for a model.
    pub fn hold(&self, runner: &str, name: &str) -> Reservation {
        let fleet = self.registry.fleet();
        fleet.runner(runner).unwrap().try_reserve_for(&wants(name)).expect("the model can be used")
    }

    pub async fn ask(&self, name: &str) -> Result<String, gateway_core::DispatchError> {
        ask(&self.dispatcher, name).await
    }

    /// A request in a task of its own.
    pub fn asks(&self, name: &str) -> tokio::task::JoinHandle<Result<String, gateway_core::DispatchError>> {
        let (dispatcher, name) = (self.dispatcher.clone(), name.to_owned());
        tokio::spawn(async move { ask(&dispatcher, &name).await })
    }
}

/// The id of the runner that answered.
pub async fn ask(dispatcher: &Dispatcher, name: &str) -> Result<String, gateway_core::DispatchError> {
    let answer = dispatcher.dispatch(gateway_testkit::request(&model(name), "{}")).await?;
    let runner = answer.runner.id().to_string();
    assert_eq!(gateway_testkit::text(answer.response).await.unwrap(), "fine");
    Ok(runner)
}

/// A lifecycle without a dispatcher.
pub fn lifecycle(registry: &Arc<InMemoryRegistry>, policy: LifecyclePolicy) -> Lifecycle {
    Lifecycle::new(registry.clone(), Arc::new(CapabilityRouter), HealthPolicy::default(), policy)
}
