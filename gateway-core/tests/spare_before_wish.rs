//! A runner that is to be spared is used only when nobody else is, whichever of a class's models it has.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{fine, model, setup, spec, status};
use gateway_core::{HeldFor, Model, ModelId, ModelRoutes, ModelState, Registry, RunnerStatus};
use gateway_testkit::{MockEngine, Script, request, text};

fn id(name: &str) -> ModelId {
    ModelId::new(name).unwrap()
}

/// Asks once for a pause, and is fine afterwards.
fn once_busy() -> MockEngine {
    let asked = Arc::new(std::sync::atomic::AtomicBool::new(false));
    MockEngine::new(move |_| match asked.swap(true, std::sync::atomic::Ordering::Relaxed) {
        false => Script::status(503, "busy").header(http::header::RETRY_AFTER, "20"),
        true => Script::chunks(["fine"]),
    })
}

async fn served_by(setup: &common::Setup, name: &str) -> (String, u32) {
    let answer = setup.dispatcher.dispatch(request(&id(name), "{}")).await.unwrap();
    let served = (answer.runner.id().to_string(), answer.tries);
    assert_eq!(text(answer.response).await.unwrap(), "fine");
    served
}

#[tokio::test(start_paused = true)]
async fn the_next_model_of_a_class_goes_before_a_runner_that_asked_for_a_pause() {
    let routes = ModelRoutes::builder().class("fast", ["a", "b"]).build().unwrap();
    let setup = setup(vec![], |builder| builder.routes(routes));
    setup.registry.join(spec("first"), RunnerStatus::serving([id("a")]), once_busy().link());
    setup.registry.join(spec("second"), RunnerStatus::serving([id("b")]), fine().link());
    assert_eq!(served_by(&setup, "class:fast").await, ("second".to_owned(), 2));
    for _ in 0..3 {
        assert_eq!(served_by(&setup, "class:fast").await, ("second".to_owned(), 1));
    }
    // Better that one than nobody.
    assert_eq!(served_by(&setup, "a").await, ("first".to_owned(), 1));
    tokio::time::advance(Duration::from_secs(20)).await;
    assert_eq!(served_by(&setup, "class:fast").await, ("first".to_owned(), 1));
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn who_loads_on_demand_goes_before_a_loaded_runner_that_asked_for_a_pause() {
    let setup = setup(vec![status(503, "busy")], common::same);
    let mut cold = RunnerStatus::serving([]);
    cold.models.push(Model::new(model(), ModelState::OnDemand));
    setup.registry.join(spec("cold"), cold, fine().link());
    assert_eq!(served_by(&setup, "m").await, ("cold".to_owned(), 2));
    assert_eq!(
        setup.dispatcher.standing(setup.registry.fleet().runner("r0").unwrap()).held.unwrap().1,
        HeldFor::RetryAfter
    );
    assert_eq!(served_by(&setup, "m").await, ("cold".to_owned(), 1));
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn a_loaded_runner_that_warms_up_goes_before_who_loads_on_demand() {
    let setup = setup(vec![fine()], common::same);
    let mut cold = RunnerStatus::serving([]);
    cold.models.push(Model::new(model(), ModelState::OnDemand));
    setup.registry.join(spec("cold"), cold, fine().link());
    let key = setup.registry.fleet().runner("r0").unwrap().key().clone();
    setup.registry.leave(&key, gateway_core::LeaveReason::Disconnected);
    setup.registry.join(spec("r0"), RunnerStatus::serving([model()]), setup.engines[0].link());
    let warming = setup.registry.fleet().runner("r0").unwrap().clone();
    assert!(setup.dispatcher.standing(&warming).warming.is_some());
    for _ in 0..20 {
        assert_eq!(served_by(&setup, "m").await, ("r0".to_owned(), 1));
    }
    setup.all_zero().await;
}
