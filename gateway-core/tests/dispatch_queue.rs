//! Requests that find every runner full wait for a slot, in order, and are handed the next one.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{model, setup, spec};
use gateway_core::{
    Balancer, Candidates, CapabilityRouter, Claim, DispatchErrorKind, Dispatched, Fleet, ModelId,
    ModelRoutes, Pool, Priority, QueuePolicy, Refusal, Registry, Requirements, Reservation, Router, Runner,
    RunnerStatus,
};
use gateway_testkit::{Fault, MockEngine, Script, request};
use tokio::task::JoinHandle;
use tokio::time::Instant;

type Answer = Result<Dispatched, DispatchErrorKind>;

/// One runner with one slot, whose answers take a second.
fn busy() -> Arc<common::Setup> {
    let engine = || MockEngine::new(|_| Script::chunks(["fine"]).interval(Duration::from_secs(1)));
    let setup = setup(vec![], |builder| builder.queue(QueuePolicy::default()));
    setup.registry.join(spec("only").slots(1), RunnerStatus::serving([model()]), engine().link());
    Arc::new(setup)
}

fn ask(setup: &Arc<common::Setup>, claim: Claim) -> JoinHandle<Answer> {
    let setup = setup.clone();
    tokio::spawn(async move {
        let call = gateway_core::Dispatch { claim, ..request(&model(), "{}") };
        setup.dispatcher.dispatch(call).await.map_err(|error| error.kind())
    })
}

async fn depth(setup: &common::Setup, wanted: usize) {
    while setup.dispatcher.queue_depth() != wanted {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_handed_to_who_waits_and_the_wait_is_told() {
    let setup = busy();
    let began = Instant::now();
    let held = setup.registry.fleet().runner("only").unwrap().try_reserve().unwrap();
    let first = ask(&setup, Claim::default());
    depth(&setup, 1).await;
    let second = ask(&setup, Claim { priority: Priority::High, ..Claim::default() });
    depth(&setup, 2).await;
    tokio::time::advance(Duration::from_secs(3)).await;
    drop(held);
    let second = second.await.unwrap().unwrap();
    assert_eq!(second.waited, Duration::from_secs(3));
    assert_eq!(setup.dispatcher.queue_depth(), 1);
    drop(second);
    assert!(first.await.unwrap().unwrap().waited >= Duration::from_secs(3));
    assert!(began.elapsed() < Duration::from_secs(10));
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_does_not_overtake() {
    let setup = busy();
    let held = setup.registry.fleet().runner("only").unwrap().try_reserve().unwrap();
    let first = ask(&setup, Claim::default());
    depth(&setup, 1).await;
    drop(held);
    // Handed over already, though the waiter's task has not run yet.
    let second = ask(&setup, Claim::default());
    let first = first.await.unwrap().unwrap();
    assert!(!second.is_finished());
    drop(first);
    assert!(second.await.unwrap().is_ok());
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn who_has_been_failed_waits_for_another_runner() {
    let setup = busy();
    let broken = MockEngine::new(|_| Script::text("").fault(Fault::CutBeforeHead));
    setup.registry.join(spec("broken"), RunnerStatus::serving([model()]), broken.link());
    let held = setup.registry.fleet().runner("only").unwrap().try_reserve().unwrap();
    let asked = ask(&setup, Claim::default());
    depth(&setup, 1).await;
    assert_eq!(setup.recorder.tries_on("broken"), 1);
    drop(held);
    assert_eq!(asked.await.unwrap().unwrap().tries, 2);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn patience_ends_and_a_cancel_leaves_at_once() {
    let setup = busy();
    let held = setup.registry.fleet().runner("only").unwrap().try_reserve().unwrap();
    let short = Claim { patience: Some(Duration::from_secs(2)), ..Claim::default() };
    let began = Instant::now();
    assert_eq!(ask(&setup, short).await.unwrap().unwrap_err(), DispatchErrorKind::QueueTimeout);
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    let leaves = ask(&setup, Claim::default());
    depth(&setup, 1).await;
    leaves.abort();
    assert!(leaves.await.unwrap_err().is_cancelled());
    assert_eq!(setup.dispatcher.queue_depth(), 0);
    drop(held);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn when_the_last_runner_goes_nobody_waits_on() {
    let setup = busy();
    let held = setup.registry.fleet().runner("only").unwrap().try_reserve().unwrap();
    let asked = ask(&setup, Claim::default());
    depth(&setup, 1).await;
    let key = held.runner().key().clone();
    setup.registry.leave(&key, gateway_core::LeaveReason::Disconnected);
    let kind = asked.await.unwrap().unwrap_err();
    assert!(matches!(kind, DispatchErrorKind::UnknownModel | DispatchErrorKind::NoneEligible), "{kind:?}");
}

#[tokio::test(start_paused = true)]
async fn other_names_of_a_model_wait_in_its_line() {
    let routes =
        ModelRoutes::builder().alias("nick", model().as_str()).class("any", ["m", "n"]).build().unwrap();
    let setup = Arc::new(setup(vec![], |builder| builder.queue(QueuePolicy::default()).routes(routes)));
    let engine = MockEngine::new(|_| Script::chunks(["fine"]));
    setup.registry.join(spec("only").slots(1), RunnerStatus::serving([model()]), engine.link());
    let held = setup.registry.fleet().runner("only").unwrap().try_reserve().unwrap();
    let asked: Vec<_> = ["nick", "m", "class:any"]
        .map(|name| {
            let setup = setup.clone();
            let call = request(&ModelId::new(name).unwrap(), "{}");
            tokio::spawn(async move { setup.dispatcher.dispatch(call).await.map(drop) })
        })
        .into();
    depth(&setup, 3).await;
    let lanes = setup.dispatcher.queue().lanes;
    let lanes: Vec<_> =
        lanes.iter().map(|lane| (lane.model.as_ref().unwrap().as_str(), lane.waiting)).collect();
    assert_eq!(lanes, [("m", 2), ("class:any", 1)]);
    drop(held);
    for asked in asked {
        asked.await.unwrap().unwrap();
    }
    setup.all_zero().await;
}

/// Knows the model by a name that nobody else knows.
struct Nicknames;

impl Nicknames {
    fn real() -> Requirements {
        Requirements::model(model())
    }
}

impl Router for Nicknames {
    fn pool<'f>(&self, _: &Requirements, fleet: &'f Fleet) -> Pool<'f> {
        CapabilityRouter.pool(&Self::real(), fleet).inexact()
    }

    fn verdict(&self, _: &Requirements, runner: &Runner) -> Result<(), Refusal> {
        CapabilityRouter.verdict(&Self::real(), runner)
    }
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_handed_to_who_waits_for_a_name_that_only_the_router_knows() {
    let queue = QueuePolicy { look: Duration::MAX, ..QueuePolicy::default() };
    let setup = setup(vec![], |builder| builder.queue(queue).router(Arc::new(Nicknames)));
    let engine = MockEngine::new(|_| Script::chunks(["fine"]));
    setup.registry.join(spec("only").slots(1), RunnerStatus::serving([model()]), engine.link());
    let setup = Arc::new(setup);
    let held = setup.registry.fleet().runner("only").unwrap().try_reserve().unwrap();
    let began = Instant::now();
    let asked = tokio::spawn({
        let setup = setup.clone();
        let call = request(&ModelId::new("nick").unwrap(), "{}");
        async move { setup.dispatcher.dispatch(call).await.map(drop) }
    });
    depth(&setup, 1).await;
    drop(held);
    asked.await.unwrap().unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    setup.all_zero().await;
}

/// Notes the deadlines that it is told of.
#[derive(Default)]
struct Watching(Mutex<Vec<Option<Duration>>>);

impl Balancer for Watching {
    fn name(&self) -> &'static str {
        "watching"
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        assert_eq!(requirements.workload, candidates.requirements().workload);
        self.0.lock().unwrap().push(requirements.workload.deadline);
        (0..candidates.len()).find_map(|at| candidates.try_reserve(at))
    }
}

#[tokio::test(start_paused = true)]
async fn strategies_are_told_how_much_of_a_deadline_the_wait_has_left() {
    let watching = Arc::new(Watching::default());
    let setup = setup(vec![], |builder| builder.queue(QueuePolicy::default()).balancer(watching.clone()));
    let engine = MockEngine::new(|_| Script::chunks(["fine"]));
    setup.registry.join(spec("only").slots(1), RunnerStatus::serving([model()]), engine.link());
    let setup = Arc::new(setup);
    let held = setup.registry.fleet().runner("only").unwrap().try_reserve().unwrap();
    let mut call = request(&model(), "{}");
    call.requirements.workload.deadline = Some(Duration::from_secs(10));
    let asked = tokio::spawn({
        let setup = setup.clone();
        async move { setup.dispatcher.dispatch(call).await.map(drop) }
    });
    depth(&setup, 1).await;
    tokio::time::advance(Duration::from_secs(3)).await;
    drop(held);
    asked.await.unwrap().unwrap();
    let seen = watching.0.lock().unwrap().clone();
    let (first, last) = (seen.first().unwrap(), seen.last().unwrap());
    assert_eq!((*first, *last), (Some(Duration::from_secs(10)), Some(Duration::from_secs(7))));
}
