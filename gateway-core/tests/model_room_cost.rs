//! What it costs those who wait for room that a slot is freed does not grow with how many they are. Counted, not
//! timed: each look reads the fleet.

mod lifecycle_support;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gateway_core::{
    Dispatcher, Fleet, FleetEvents, InMemoryRegistry, LeaveReason, LifecyclePolicy, Registry, Reservation,
    RunnerChange, RunnerKey, RunnerLink, RunnerSpec, RunnerStatus,
};
use lifecycle_support::*;

/// Counts how often the fleet is read.
#[derive(Default)]
struct Counting {
    inner: InMemoryRegistry,
    reads: AtomicUsize,
}

impl Registry for Counting {
    fn fleet(&self) -> Arc<Fleet> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.fleet()
    }

    fn events(&self) -> FleetEvents {
        self.inner.events()
    }

    fn join(&self, spec: RunnerSpec, status: RunnerStatus, link: Arc<dyn RunnerLink>) -> RunnerKey {
        self.inner.join(spec, status, link)
    }

    fn update(&self, key: &RunnerKey, change: RunnerChange) -> bool {
        self.inner.update(key, change)
    }

    fn leave(&self, key: &RunnerKey, reason: LeaveReason) -> bool {
        self.inner.leave(key, reason)
    }
}

/// So many requests wait for room for x on two runners, where a is in use and b pinned. How often the fleet is
/// read because a slot of the first is freed that makes no room.
async fn reads_per_freed_slot(waiting: usize, knows_x: bool) -> usize {
    let registry = Arc::new(Counting::default());
    let policy = LifecyclePolicy { max_loaded: NonZeroU32::new(2), ..LifecyclePolicy::default() };
    let policy = policy.pin(model("b")).pin(model("c"));
    let dispatcher = Dispatcher::builder(registry.clone()).lifecycle(policy).build();
    let engine = engine();
    let more = if knows_x { on_disk("x") } else { on_disk("y") };
    registry.join(spec("here"), healthy([loaded("a"), loaded("b"), more]), engine.link());
    registry.join(spec("there"), healthy([loaded("a"), loaded("c"), on_disk("x")]), engine.link());
    let fleet = registry.inner.fleet();
    let hold =
        |runner: &str| -> Reservation { fleet.runner(runner).unwrap().try_reserve_for(&wants("a")).unwrap() };
    let _held = [hold("here"), hold("there")];
    let freed = hold("here");
    let requests: Vec<_> = (0..waiting)
        .map(|_| {
            let dispatcher = dispatcher.clone();
            tokio::spawn(async move { ask(&dispatcher, "x").await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    assert_eq!(dispatcher.lifecycle().waiting(), waiting);
    registry.reads.store(0, Ordering::Relaxed);
    drop(freed);
    // No time passes, so that nobody looks by itself.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let reads = registry.reads.load(Ordering::Relaxed);
    assert!(engine.commands().is_empty());
    requests.iter().for_each(|request| request.abort());
    reads
}

#[tokio::test(start_paused = true)]
async fn a_freed_slot_has_one_look_however_many_wait() {
    let one = reads_per_freed_slot(1, true).await;
    assert_eq!(reads_per_freed_slot(200, true).await, one);
    // One to see whom it concerns, one to look, and one by the queue of those who wait for a slot.
    assert!((2..=3).contains(&one), "{one}");
}

#[tokio::test(start_paused = true)]
async fn a_slot_of_a_runner_that_does_not_know_the_model_has_none() {
    let concerned = reads_per_freed_slot(200, true).await;
    assert!(reads_per_freed_slot(200, false).await < concerned);
}

/// All who wait are served when there is room: the first has it loaded and calls the next.
#[tokio::test(start_paused = true)]
async fn the_first_who_finds_room_calls_the_others_at_once() {
    let policy = LifecyclePolicy { max_loaded: NonZeroU32::new(1), ..LifecyclePolicy::default() };
    let (world, engine) = (world(policy), engine());
    world.join("r", [loaded("a"), on_disk("x")], &engine);
    let held = world.hold("r", "a");
    // One that is held and not waited for: it does not stop those behind it for long.
    let asleep = world.lifecycle().ensure(&wants("x"), &[]).unwrap();
    let requests: Vec<_> = (0..100).map(|_| world.asks("x")).collect();
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    drop(asleep);
    let began = tokio::time::Instant::now();
    drop(held);
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap(), "r");
    }
    assert_eq!(engine.commands(), [unload("a"), load("x")]);
    assert_eq!(began.elapsed(), LOAD);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_waited_for_does_not_stop_those_behind_it() {
    let policy = LifecyclePolicy { max_loaded: NonZeroU32::new(1), ..LifecyclePolicy::default() };
    let (world, engine) = (world(policy), engine());
    world.join("r", [loaded("a"), on_disk("x")], &engine);
    let held = world.hold("r", "a");
    let _asleep = world.lifecycle().ensure(&wants("x"), &[]).unwrap();
    let requests: Vec<_> = (0..10).map(|_| world.asks("x")).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = tokio::time::Instant::now();
    drop(held);
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap(), "r");
    }
    assert!(began.elapsed() <= LOAD + Duration::from_secs(11), "{:?}", began.elapsed());
}
