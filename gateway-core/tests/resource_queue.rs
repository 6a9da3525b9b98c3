//! Requests that need resources wait for them, and are woken as soon as there are some.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Setup, model, setup, spec};
use gateway_core::{
    Dispatch, DispatchError, DispatchErrorKind, Dispatched, LeaveReason, QueuePolicy, Refusal, Registry,
    Requirements, ResourceReport, Resources, RunnerChange, RunnerSpec, RunnerStatus,
};
use gateway_testkit::{MockEngine, Script, request};
use tokio::task::JoinHandle;

/// Never looks by itself: who is served then was woken.
const BLIND: QueuePolicy =
    QueuePolicy { max_waiting: 4096, max_per_tenant: 4096, look: Duration::MAX, ..QueuePolicy::OFF };

type Answer = Result<Dispatched, DispatchError>;

fn gpus(gpus: f64) -> Resources {
    Resources { cpus: 8.0, gpus, memory_gb: 64.0 }
}

fn reports(total: Option<f64>, free: f64) -> RunnerStatus {
    RunnerStatus {
        resources: ResourceReport {
            total: total.map(gpus),
            available: Some(gpus(free)),
            max_age: Some(Duration::ZERO),
        },
        ..RunnerStatus::serving([model()])
    }
}

fn one(policy: QueuePolicy, spec: RunnerSpec, status: RunnerStatus) -> Arc<Setup> {
    let engine = MockEngine::new(|_| Script::chunks(["fine"]).delay(Duration::from_millis(1)));
    let setup = setup(vec![], |builder| builder.queue(policy));
    setup.registry.join(spec, status, engine.link());
    Arc::new(setup)
}

fn needs(gpus: f64) -> Requirements {
    let resources = Resources { gpus, ..Resources::default() };
    Requirements { resources: Some(resources), ..Requirements::model(model()) }
}

async fn dispatch(setup: &Setup, gpus: f64) -> Answer {
    let call = Dispatch { requirements: needs(gpus), ..request(&model(), "{}") };
    setup.dispatcher.dispatch(call).await
}

fn ask(setup: &Arc<Setup>, gpus: f64) -> JoinHandle<Answer> {
    let setup = setup.clone();
    tokio::spawn(async move { dispatch(&setup, gpus).await })
}

async fn depth(setup: &Setup, wanted: usize) {
    while setup.dispatcher.queue_depth() != wanted {
        tokio::task::yield_now().await;
    }
}

fn report(setup: &Setup, status: RunnerStatus) {
    let fleet = setup.registry.fleet();
    assert!(setup.registry.update(fleet.runners()[0].key(), RunnerChange::Status(status)));
}

fn reserve(setup: &Setup, gpus: f64) -> gateway_core::Reservation {
    setup.registry.fleet().runners()[0].try_reserve_for(&needs(gpus)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn who_gives_resources_back_wakes_who_waits_for_them() {
    let setup = one(BLIND, spec("r"), reports(Some(1.0), 1.0));
    let held = reserve(&setup, 1.0);
    let waiting = ask(&setup, 1.0);
    depth(&setup, 1).await;
    drop(held);
    assert!(waiting.await.unwrap().is_ok());
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn a_report_of_more_wakes_who_waits() {
    for total in [None, Some(2.0)] {
        let setup = one(BLIND, spec("r"), reports(total, 0.0));
        let version = setup.registry.fleet().version();
        let waiting = ask(&setup, 1.0);
        depth(&setup, 1).await;
        report(&setup, reports(total, 0.5));
        depth(&setup, 1).await;
        report(&setup, reports(total, 1.0));
        assert!(waiting.await.unwrap().is_ok());
        assert_eq!(setup.registry.fleet().version(), version, "no snapshot is made for that");
        setup.all_zero().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_broken_off_is_handed_on_when_a_report_says_that_it_is_free() {
    let setup = one(BLIND, spec("r"), reports(None, 1.0));
    let mut held = reserve(&setup, 1.0);
    let waiting = ask(&setup, 1.0);
    depth(&setup, 1).await;
    tokio::time::advance(Duration::from_secs(2)).await;
    held.broken_off();
    drop(held);
    depth(&setup, 1).await;
    tokio::time::advance(Duration::from_secs(2)).await;
    report(&setup, reports(None, 0.0));
    depth(&setup, 1).await;
    report(&setup, reports(None, 1.0));
    assert!(waiting.await.unwrap().is_ok());
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_dropped_is_not_over_on_the_runner() {
    let setup = one(BLIND, spec("r"), reports(None, 2.0));
    let answer = dispatch(&setup, 1.0).await.unwrap();
    gateway_testkit::text(answer.response).await.unwrap();
    let free = || setup.registry.fleet().runners()[0].available_resources();
    assert_eq!(free(), Some(gpus(2.0)), "it ended well");
    drop(dispatch(&setup, 1.0).await.unwrap());
    assert_eq!(free(), Some(gpus(1.0)));
    setup.all_zero().await;
    tokio::time::advance(Duration::from_secs(2)).await;
    report(&setup, reports(None, 2.0));
    assert_eq!(free(), Some(gpus(2.0)));
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_comes_back_still_has_what_its_requests_use() {
    for leaves in [false, true] {
        let setup = one(BLIND, spec("r"), reports(None, 2.0));
        let held = reserve(&setup, 1.0);
        let old = setup.registry.fleet().runners()[0].clone();
        if leaves {
            assert!(setup.registry.leave(old.key(), LeaveReason::Disconnected));
        }
        // It was asked before the request was there.
        setup.registry.join(spec("r"), reports(None, 2.0), old.link().clone());
        let free = || setup.registry.fleet().runners()[0].available_resources();
        assert_eq!(free(), Some(gpus(1.0)), "{leaves}");
        drop(held);
        assert_eq!(free(), Some(gpus(2.0)), "{leaves}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_needs_none_passes_those_who_wait_for_some() {
    let setup = one(BLIND, spec("r"), reports(Some(1.0), 1.0));
    let held = reserve(&setup, 1.0);
    let waiting: Vec<_> = (0..3).map(|_| ask(&setup, 1.0)).collect();
    depth(&setup, 3).await;
    assert!(dispatch(&setup, 0.0).await.is_ok());
    drop(held);
    for waiting in waiting {
        gateway_testkit::text(waiting.await.unwrap().unwrap().response).await.unwrap();
    }
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_queue_it_is_told_who_has_none_free_and_when_to_come_back() {
    let setup = one(QueuePolicy::OFF, spec("r"), reports(Some(1.0), 1.0));
    let held = reserve(&setup, 1.0);
    let error = dispatch(&setup, 1.0).await.unwrap_err();
    assert_eq!(error.kind(), DispatchErrorKind::NoneEligible);
    assert!(error.retry_after().is_some());
    assert_eq!(error.refusals()[0].1, Refusal::ResourcesTaken);
    assert!(dispatch(&setup, 0.0).await.is_ok(), "that much is free");
    drop(held);
    assert!(dispatch(&setup, 1.0).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_what_no_runner_has() {
    let setup = one(BLIND, spec("r"), reports(Some(1.0), 1.0));
    let error = dispatch(&setup, 2.0).await.unwrap_err();
    assert_eq!(error.kind(), DispatchErrorKind::NoneEligible);
    assert_eq!(error.refusals()[0].1, Refusal::Resources);
    // Who waited for what might be there goes when it turns out that it is not.
    let setup = one(QueuePolicy::default(), spec("r"), reports(None, 0.0));
    let waiting = ask(&setup, 1.0);
    depth(&setup, 1).await;
    report(&setup, reports(Some(0.0), 0.0));
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), DispatchErrorKind::NoneEligible);
}

#[tokio::test(start_paused = true)]
async fn unknown_is_not_enough_unless_the_operator_says_what_there_is() {
    let unknown = || RunnerStatus::serving([model()]);
    let setup = one(BLIND, spec("r"), unknown());
    let error = dispatch(&setup, 0.0).await.unwrap_err();
    assert_eq!(
        (error.kind(), &error.refusals()[0].1),
        (DispatchErrorKind::NoneEligible, &Refusal::Resources)
    );
    let setup = one(BLIND, spec("r").resources(gpus(2.0)), unknown());
    let held = [reserve(&setup, 1.0), reserve(&setup, 1.0)];
    let waiting = ask(&setup, 1.0);
    depth(&setup, 1).await;
    report(&setup, unknown());
    depth(&setup, 1).await;
    drop(held);
    assert!(waiting.await.unwrap().is_ok());
    setup.all_zero().await;
}

/// Slots and resources are scarce by turns, and many threads take and give back both. Nobody looks again by himself.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_sleeps_on_what_is_free() {
    for slots in [2, 3, 5] {
        let setup = one(BLIND, spec("r").slots(slots), reports(Some(3.0), 3.0));
        let asking = (0..600).map(|n| {
            let setup = setup.clone();
            tokio::spawn(async move {
                let answer = dispatch(&setup, [0.0, 1.0, 1.5, 3.0][n % 4]).await.expect("nobody sleeps");
                gateway_testkit::text(answer.response).await.unwrap()
            })
        });
        for asking in asking.collect::<Vec<_>>() {
            asking.await.unwrap();
        }
        setup.all_zero().await;
        assert_eq!(setup.registry.fleet().runners()[0].available_resources(), Some(gpus(3.0)));
    }
}
