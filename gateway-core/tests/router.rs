//! Who could serve a request, and why the others could not.

use std::sync::Arc;

use gateway_core::{
    Capability, CapabilityReport, CapabilityRouter, Health, InMemoryRegistry, MachineKind, Modalities,
    Modality, Model, ModelId, ModelState, Refusal, Registry, Requirements, ResourceReport, Resources, Router,
    Runner, RunnerId, RunnerSpec, RunnerStatus,
};
use gateway_testkit::{MockEngine, Script};
use proptest::prelude::*;

fn name(name: &str) -> ModelId {
    ModelId::new(name).unwrap()
}

fn runner(spec: RunnerSpec, status: RunnerStatus) -> Arc<Runner> {
    let registry = InMemoryRegistry::new();
    let key = registry.join(spec, status, MockEngine::new(|_| Script::text("")).link());
    registry.fleet().runner(key.id.as_str()).unwrap().clone()
}

fn spec() -> RunnerSpec {
    RunnerSpec::new(RunnerId::new("r").unwrap())
}

fn verdict(requirements: &Requirements, runner: &Runner) -> Result<(), Refusal> {
    CapabilityRouter.verdict(requirements, runner)
}

#[test]
fn model_and_health() {
    let needs = Requirements::model(name("m"));
    let status = RunnerStatus::serving([name("m")]);
    assert_eq!(verdict(&needs, &runner(spec(), status.clone())), Ok(()));
    let other = RunnerStatus::serving([name("n")]);
    assert_eq!(verdict(&needs, &runner(spec(), other)), Err(Refusal::UnknownModel));
    let mut loading = status.clone();
    loading.models[0].state = ModelState::Loading { progress: Some(0.5) };
    assert!(matches!(verdict(&needs, &runner(spec(), loading)), Err(Refusal::ModelNotReady(_))));
    let ill = RunnerStatus { health: Health::Unhealthy, ..status.clone() };
    assert_eq!(verdict(&needs, &runner(spec(), ill)), Err(Refusal::Health(Health::Unhealthy)));
    let degraded = RunnerStatus { health: Health::Degraded, ..status };
    assert_eq!(verdict(&needs, &runner(spec(), degraded)), Ok(()));
}

#[test]
fn machine_labels_and_resources_must_be_known() {
    let status = RunnerStatus::serving([name("m")]);
    let mut needs = Requirements::model(name("m"));
    needs.machine = Some(MachineKind::Gpu);
    assert_eq!(verdict(&needs, &runner(spec(), status.clone())), Err(Refusal::Machine));
    assert_eq!(verdict(&needs, &runner(spec().machine("gpu-server"), status.clone())), Ok(()));

    let mut needs = Requirements::model(name("m"));
    needs.labels.insert("zone".into(), "eu".into());
    assert_eq!(verdict(&needs, &runner(spec(), status.clone())), Err(Refusal::Label("zone=eu".into())));
    assert_eq!(verdict(&needs, &runner(spec().label("zone", "eu"), status.clone())), Ok(()));

    let mut needs = Requirements::model(name("m"));
    needs.resources = Some(Resources { gpus: 1.0, ..Resources::default() });
    assert_eq!(
        verdict(&needs, &runner(spec(), status.clone())),
        Err(Refusal::Resources),
        "unknown is not enough"
    );
    let gpus = |gpus| Resources { gpus, ..Resources::default() };
    let with = |total: Option<f64>, free| RunnerStatus {
        resources: ResourceReport {
            total: total.map(gpus),
            available: Some(gpus(free)),
            ..ResourceReport::default()
        },
        ..status.clone()
    };
    assert_eq!(verdict(&needs, &runner(spec(), with(Some(0.0), 0.0))), Err(Refusal::Resources));
    assert_eq!(verdict(&needs, &runner(spec(), with(Some(1.0), 0.0))), Ok(()), "taken is not missing");
    assert_eq!(verdict(&needs, &runner(spec(), with(None, 0.0))), Ok(()), "who knows");
    assert_eq!(verdict(&needs, &runner(spec().resources(gpus(1.0)), status.clone())), Ok(()));
}

#[test]
fn what_a_model_does_not_say_is_not_held_against_it() {
    let mut needs = Requirements::model(name("m"));
    needs.context_tokens = Some(8000);
    needs.modalities = Modalities::default().with(Modality::Image);
    let with = |model: Model| RunnerStatus { models: vec![model], ..RunnerStatus::serving([]) };
    let model = Model::loaded(name("m"));
    assert_eq!(verdict(&needs, &runner(spec(), with(model.clone()))), Ok(()));
    let mut short = model.clone();
    short.context_length = Some(4096);
    assert_eq!(verdict(&needs, &runner(spec(), with(short))), Err(Refusal::ContextLength(4096)));
    let mut text = model;
    text.modalities = Some(Modalities::default().with(Modality::Text));
    assert_eq!(verdict(&needs, &runner(spec(), with(text))), Err(Refusal::Modality));
}

#[test]
fn capabilities_matter_once_reported() {
    let mut needs = Requirements::model(name("m"));
    needs.capability = Some(Capability::Embeddings);
    let mut status = RunnerStatus::serving([name("m")]);
    assert_eq!(verdict(&needs, &runner(spec(), status.clone())), Ok(()));
    let report = |capability| CapabilityReport { capability, model: None, state: ModelState::Loaded };
    status.capabilities = vec![report(Capability::FastChat)];
    assert_eq!(verdict(&needs, &runner(spec(), status.clone())), Err(Refusal::Capability));
    status.capabilities.push(report(Capability::Embeddings));
    assert_eq!(verdict(&needs, &runner(spec(), status)), Ok(()));
}

#[test]
fn loaded_is_preferred_to_on_demand() {
    let registry = InMemoryRegistry::new();
    let link = || MockEngine::new(|_| Script::text("")).link();
    let mut on_demand = RunnerStatus::serving([name("m")]);
    on_demand.models[0].state = ModelState::OnDemand;
    registry.join(RunnerSpec::new(RunnerId::new("cold").unwrap()), on_demand, link());
    let needs = Requirements::model(name("m"));
    let pool = |registry: &InMemoryRegistry| {
        let fleet = registry.fleet();
        let pool = CapabilityRouter.pool(&needs, &fleet);
        pool.runners().iter().map(|runner| runner.id().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(pool(&registry), ["cold"]);
    let warm = RunnerSpec::new(RunnerId::new("warm").unwrap());
    registry.join(warm, RunnerStatus::serving([name("m")]), link());
    assert_eq!(pool(&registry), ["warm"]);
}

fn state() -> impl Strategy<Value = ModelState> {
    prop_oneof![
        Just(ModelState::Loaded),
        Just(ModelState::OnDemand),
        Just(ModelState::Available),
        Just(ModelState::Unloading),
    ]
}

proptest! {
    /// An exact pool holds only runners that the verdict accepts, and every loaded one that it accepts.
    #[test]
    fn pool_and_verdict_agree(
        runners in proptest::collection::vec((proptest::option::of(state()), any::<bool>(), any::<bool>()), 0..12),
        gpu in any::<bool>(),
    ) {
        let registry = InMemoryRegistry::new();
        for (number, (state, up, is_gpu)) in runners.into_iter().enumerate() {
            let mut status = RunnerStatus::serving([]);
            status.models.extend(state.map(|state| Model::new(name("m"), state)));
            status.health = if up { Health::Healthy } else { Health::Unhealthy };
            let spec = RunnerSpec::new(RunnerId::new(format!("{number}")).unwrap());
            let spec = spec.machine(if is_gpu { "gpu" } else { "cpu" });
            registry.join(spec, status, MockEngine::new(|_| Script::text("")).link());
        }
        let mut needs = Requirements::model(name("m"));
        needs.machine = gpu.then_some(MachineKind::Gpu);
        let fleet = registry.fleet();
        let pool = CapabilityRouter.pool(&needs, &fleet);
        prop_assert!(pool.is_exact() != gpu || pool.runners().is_empty());
        for runner in fleet.runners() {
            let accepted = CapabilityRouter.verdict(&needs, runner).is_ok();
            let inside = pool.runners().iter().any(|other| other.key() == runner.key());
            if pool.is_exact() && inside {
                prop_assert!(accepted);
            }
            let loaded = runner.model("m").is_some_and(|model| model.state == ModelState::Loaded);
            if accepted && loaded {
                prop_assert!(inside);
            }
        }
    }
}
