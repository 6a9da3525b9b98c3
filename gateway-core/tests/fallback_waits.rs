//! When nobody can serve what was asked for, a fallback that is only busy is waited for.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{fine, spec};
use gateway_core::{
    Deadlines, DispatchError, DispatchErrorKind, Dispatched, Model, ModelId, ModelRoutes, ModelState,
    QueuePolicy, Registry, RunnerStatus,
};
use gateway_testkit::{CommandScript, request, text};
use tokio::task::JoinHandle;
use tokio::time::Instant;

fn id(name: &str) -> ModelId {
    ModelId::new(name).unwrap()
}

/// `small`, with one slot, stands in for `big`, which nobody has.
fn only_small(queue: QueuePolicy) -> Arc<common::Setup> {
    let routes = ModelRoutes::builder().fallback("big", ["small"]).build().unwrap();
    let setup = common::setup(vec![], |builder| builder.queue(queue).routes(routes));
    setup.registry.join(spec("s").slots(1), RunnerStatus::serving([id("small")]), fine().link());
    Arc::new(setup)
}

fn ask(setup: &Arc<common::Setup>, name: &str) -> JoinHandle<Result<Dispatched, DispatchError>> {
    let (setup, call) = (setup.clone(), request(&id(name), "{}"));
    tokio::spawn(async move { setup.dispatcher.dispatch(call).await })
}

async fn depth(setup: &common::Setup, wanted: usize) {
    while setup.dispatcher.queue_depth() != wanted {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_fallback_is_waited_for_in_its_line() {
    let setup = only_small(QueuePolicy::default());
    let held = setup.registry.fleet().runner("s").unwrap().try_reserve().unwrap();
    let first = ask(&setup, "small");
    depth(&setup, 1).await;
    let second = ask(&setup, "big");
    depth(&setup, 2).await;
    let third = ask(&setup, "small");
    depth(&setup, 3).await;
    assert_eq!(setup.dispatcher.queue().lanes.len(), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    drop(held);
    drop(first.await.unwrap().unwrap());
    let answer = second.await.unwrap().unwrap();
    assert!(answer.is_fallback && answer.waited >= Duration::from_secs(1));
    assert!(!third.is_finished(), "who came later is served later");
    assert_eq!(text(answer.response).await.unwrap(), "fine");
    drop(third.await.unwrap().unwrap());
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_is_taken_if_it_comes_meanwhile() {
    let setup = only_small(QueuePolicy::default());
    let held = setup.registry.fleet().runner("s").unwrap().try_reserve().unwrap();
    let asked = ask(&setup, "big");
    depth(&setup, 1).await;
    setup.registry.join(spec("b"), RunnerStatus::serving([id("big")]), fine().link());
    let answer = asked.await.unwrap().unwrap();
    assert_eq!((answer.runner.id().as_str(), answer.is_fallback), ("b", false));
    drop((held, answer));
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn patience_and_hope_end_also_there() {
    let setup = only_small(QueuePolicy::default());
    let held = setup.registry.fleet().runner("s").unwrap().try_reserve().unwrap();
    let error = ask(&setup, "big").await.unwrap().unwrap_err();
    assert_eq!(error.kind(), DispatchErrorKind::QueueTimeout);
    let asked = ask(&setup, "big");
    depth(&setup, 1).await;
    let key = held.runner().key().clone();
    setup.registry.leave(&key, gateway_core::LeaveReason::Disconnected);
    let kind = asked.await.unwrap().unwrap_err().kind();
    assert!(matches!(kind, DispatchErrorKind::UnknownModel | DispatchErrorKind::NoneEligible), "{kind:?}");
    drop(held);
    let without_queue = only_small(QueuePolicy::OFF);
    let _held = without_queue.registry.fleet().runner("s").unwrap().try_reserve().unwrap();
    let error = ask(&without_queue, "big").await.unwrap().unwrap_err();
    assert_eq!(error.kind(), DispatchErrorKind::Overloaded, "it may come back");
}

#[tokio::test(start_paused = true)]
async fn no_fallback_is_asked_when_the_time_is_up() {
    let routes = ModelRoutes::builder().fallback("big", ["small"]).build().unwrap();
    let deadlines = Deadlines { total: Some(Duration::from_secs(5)), ..Deadlines::default() };
    let (slow, small) = (fine(), fine());
    slow.script_commands(|_| CommandScript::never());
    let setup = common::setup(vec![], |builder| builder.routes(routes).deadlines(deadlines));
    let mut on_disk = RunnerStatus::serving([]);
    on_disk.models.push(Model::new(id("big"), ModelState::Available));
    setup.registry.join(spec("b"), on_disk, slow.link());
    setup.registry.join(spec("s"), RunnerStatus::serving([id("small")]), small.link());
    let began = Instant::now();
    let error = setup.dispatcher.dispatch(request(&id("big"), "{}")).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed()), (DispatchErrorKind::Deadline, Duration::from_secs(5)));
    assert_eq!(small.counts().started, 0);
}
