//! A heartbeat that says the same again is heard, and costs the registry nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gateway_core::{
    Fleet, FleetEvents, InMemoryRegistry, LeaveReason, Membership, ModelChange, ModelId, ModelState,
    Registry, ReportedLoad, ResourceReport, Resources, Runner, RunnerChange, RunnerId, RunnerKey, RunnerLink,
    RunnerSpec, RunnerStatus,
};
use gateway_testkit::{MockEngine, Script};

/// Counts how often it is told something.
#[derive(Default)]
struct Counting {
    inner: InMemoryRegistry,
    told: AtomicUsize,
}

impl Registry for Counting {
    fn fleet(&self) -> Arc<Fleet> {
        self.inner.fleet()
    }

    fn events(&self) -> FleetEvents {
        self.inner.events()
    }

    fn join(&self, spec: RunnerSpec, status: RunnerStatus, link: Arc<dyn RunnerLink>) -> RunnerKey {
        self.inner.join(spec, status, link)
    }

    fn update(&self, key: &RunnerKey, change: RunnerChange) -> bool {
        self.told.fetch_add(1, Ordering::Relaxed);
        self.inner.update(key, change)
    }

    fn leave(&self, key: &RunnerKey, reason: LeaveReason) -> bool {
        self.inner.leave(key, reason)
    }
}

fn joined(registry: &Arc<Counting>) -> Membership {
    let spec = RunnerSpec::new(RunnerId::new("r").unwrap());
    let link = MockEngine::new(|_| Script::text("")).link();
    Membership::join(registry.clone(), spec, serving(), link)
}

fn serving() -> RunnerStatus {
    RunnerStatus::serving([ModelId::new("m").unwrap()])
}

fn runner(registry: &Counting) -> Arc<Runner> {
    registry.fleet().runner("r").unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn the_same_again_is_heard_and_nobody_is_told() {
    let registry = Arc::new(Counting::default());
    let mut membership = joined(&registry);
    let status = Arc::new(RunnerStatus { load: Some(ReportedLoad { active: 2, queued: 1 }), ..serving() });
    for nth in 1..=4 {
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(membership.heartbeat(&status));
        let runner = runner(&registry);
        assert_eq!(runner.last_heard(), runner.joined() + Duration::from_secs(30 * nth));
        assert_eq!((runner.load().foreign, runner.load().report_age), (Some(3), Some(Duration::ZERO)));
    }
    assert_eq!(registry.told.load(Ordering::Relaxed), 1);
    // Other words count in full, and so do these after them.
    let other = Arc::new(RunnerStatus::serving([ModelId::new("n").unwrap()]));
    assert!(membership.heartbeat(&other));
    assert!(registry.fleet().model("n").is_some());
    assert!(membership.heartbeat(&status));
    assert!(registry.fleet().model("m").is_some() && registry.fleet().model("n").is_none());
}

#[tokio::test]
async fn a_change_in_between_makes_it_count_in_full() {
    let registry = Arc::new(Counting::default());
    let mut membership = joined(&registry);
    let status = Arc::new(serving());
    let state = || runner(&registry).model("m").unwrap().state.clone();
    let change = |membership: &Membership, change: ModelChange| {
        let change = RunnerChange::Model(ModelId::new("m").unwrap(), change);
        assert!(registry.update(membership.key(), change));
    };
    for _ in 0..3 {
        assert!(membership.heartbeat(&status));
    }
    change(&membership, ModelChange::Unloading);
    assert!(membership.heartbeat(&status));
    assert_eq!(state(), ModelState::Unloading, "whatever the runner says");
    change(&membership, ModelChange::Unknown);
    assert_eq!(state(), ModelState::Unloading, "until the runner says how it is");
    assert!(membership.heartbeat(&status));
    assert_eq!(state(), ModelState::Loaded);
    // Somebody else passed on another word of it.
    assert!(membership.heartbeat(&status));
    assert!(membership.status(RunnerStatus::serving([ModelId::new("n").unwrap()])));
    assert!(membership.heartbeat(&status));
    assert!(registry.fleet().model("m").is_some() && registry.fleet().model("n").is_none());
}

#[tokio::test]
async fn who_was_replaced_changes_nothing() {
    let registry = Arc::new(Counting::default());
    let mut old = joined(&registry);
    let status = Arc::new(RunnerStatus { load: Some(ReportedLoad { active: 2, queued: 1 }), ..serving() });
    assert!(old.heartbeat(&status) && old.heartbeat(&status));
    let _new = joined(&registry);
    assert!(!old.heartbeat(&status));
    assert_eq!(runner(&registry).load().foreign, None);
}

#[tokio::test]
async fn what_is_free_of_a_machine_is_always_passed_on() {
    let registry = Arc::new(Counting::default());
    let mut membership = joined(&registry);
    let all = Resources { cpus: 4.0, gpus: 1.0, memory_gb: 16.0 };
    let resources = ResourceReport { total: Some(all), available: Some(all), max_age: None };
    let status = Arc::new(RunnerStatus { resources, ..serving() });
    for _ in 0..3 {
        assert!(membership.heartbeat(&status));
    }
    assert_eq!(registry.told.load(Ordering::Relaxed), 3);
}
