//! Aliases, classes and fallbacks: which model serves, and what the runner reads.

mod common;

use std::sync::Arc;

use common::spec;
use gateway_core::{
    DispatchErrorKind, Dispatcher, InMemoryRegistry, Model, ModelId, ModelRoutes, Registry, RequestBody,
    Requirements, RunnerStatus,
};
use gateway_testkit::{Fault, MockEngine, Script, request, text};

/// Answers with what it was sent.
fn echo() -> MockEngine {
    MockEngine::new(|seen| Script::text(seen.body.clone()))
}

fn id(name: &str) -> ModelId {
    ModelId::new(name).unwrap()
}

fn routes() -> ModelRoutes {
    ModelRoutes::builder()
        .alias("gpt", "big")
        .class("any", ["small", "big"])
        .fallback("big", ["small"])
        .build()
        .unwrap()
}

struct Setup {
    registry: Arc<InMemoryRegistry>,
    dispatcher: Dispatcher,
}

fn setup(runners: &[(&str, Model, MockEngine)]) -> Setup {
    let registry = Arc::new(InMemoryRegistry::new());
    for (name, model, engine) in runners {
        let status = RunnerStatus { models: vec![model.clone()], ..RunnerStatus::serving([]) };
        registry.join(spec(name).slots(1), status, engine.link());
    }
    Setup { dispatcher: Dispatcher::builder(registry.clone()).routes(routes()).build(), registry }
}

/// What the runner read, the model that served, and whether as a fallback.
async fn ask(setup: &Setup, model: &str) -> (String, String, bool) {
    let mut call = request(&id(model), "");
    let body = format!(r#"{{"model":"{model}"}}"#);
    let at = 9..body.len() - 1;
    *call.request.body_mut() = RequestBody::from(body).with_model_at(at);
    let answer = setup.dispatcher.dispatch(call).await.unwrap();
    let (model, is_fallback) = (answer.model.clone().unwrap(), answer.is_fallback);
    (text(answer.response).await.unwrap(), model.to_string(), is_fallback)
}

fn told(body: &str, model: &str, is_fallback: bool) -> (String, String, bool) {
    (body.to_owned(), model.to_owned(), is_fallback)
}

#[tokio::test(start_paused = true)]
async fn an_alias_is_replaced_by_what_the_runner_calls_the_model() {
    let plain = setup(&[("r", Model::loaded(id("big")), echo())]);
    assert_eq!(ask(&plain, "gpt").await, told(r#"{"model":"big"}"#, "big", false));
    assert_eq!(ask(&plain, "big").await, told(r#"{"model":"big"}"#, "big", false));
    let local = setup(&[("r", Model::loaded(id("big")).with_local_name(id("big.gguf")), echo())]);
    assert_eq!(ask(&local, "gpt").await, told(r#"{"model":"big.gguf"}"#, "big", false));
}

#[tokio::test(start_paused = true)]
async fn a_class_takes_the_first_of_its_models_that_has_room() {
    let setup = setup(&[("s", Model::loaded(id("small")), echo()), ("b", Model::loaded(id("big")), echo())]);
    assert_eq!(ask(&setup, "class:any").await.1, "small");
    let held = setup.registry.fleet().runner("s").unwrap().try_reserve();
    assert_eq!(ask(&setup, "class:any").await, told(r#"{"model":"big"}"#, "big", false));
    drop(held);
    assert_eq!(ask(&setup, "class:any").await.1, "small");
}

#[tokio::test(start_paused = true)]
async fn a_fallback_serves_when_nobody_can_serve_what_was_asked_for() {
    let only_small = setup(&[("s", Model::loaded(id("small")), echo())]);
    assert_eq!(ask(&only_small, "big").await, told(r#"{"model":"small"}"#, "small", true));
    assert_eq!(ask(&only_small, "gpt").await, told(r#"{"model":"small"}"#, "small", true));
    // Also when all that have it have failed.
    let broken = MockEngine::new(|_| Script::text("").fault(Fault::CutBeforeHead));
    let failing =
        setup(&[("s", Model::loaded(id("small")), echo()), ("b", Model::loaded(id("big")), broken)]);
    assert_eq!(ask(&failing, "big").await.1, "small");
    // It is no fallback of a name that has none.
    let error = only_small.dispatcher.dispatch(request(&id("other"), "{}")).await.unwrap_err();
    assert_eq!(error.kind(), DispatchErrorKind::UnknownModel);
}

#[tokio::test(start_paused = true)]
async fn an_explanation_names_every_runner_and_sends_nothing() {
    let (small, big) = (echo(), echo());
    let setup = setup(&[
        ("s", Model::loaded(id("small")), small.clone()),
        ("b", Model::loaded(id("big")), big.clone()),
    ]);
    let fleet = setup.registry.fleet();
    let held = fleet.runner("b").unwrap().try_reserve();
    let explained = setup.dispatcher.explain(&Requirements::model(id("gpt")));
    let targets: Vec<_> = explained.targets.iter().map(ModelId::as_str).collect();
    assert_eq!((explained.strategy, targets), ("least-loaded", vec!["big", "small"]));
    let verdicts: Vec<_> = explained
        .runners
        .iter()
        .map(|one| (one.runner.id().as_str(), one.refusal.as_ref().map(ToString::to_string)))
        .collect();
    assert_eq!(verdicts, [("b", Some("is full".to_owned())), ("s", None)]);
    let ranks: Vec<_> = explained.runners.iter().map(|one| (one.rank, one.is_fallback)).collect();
    assert_eq!(ranks, [(0, false), (1, true)]);
    drop(held);
    gateway_testkit::assert_all_zero(&setup.dispatcher, [&small, &big]).await;
}
