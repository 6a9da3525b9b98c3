//! Runners come, change and go; readers see whole snapshots; a late close touches nobody else.

use std::sync::Arc;
use std::time::Duration;

use gateway_core::{
    FleetEvent, FleetEvents, Health, InMemoryRegistry, LeaveReason, Membership, Model, ModelId, ModelState,
    Registry, ReportedLoad, RunnerChange, RunnerId, RunnerLink, RunnerSpec, RunnerStatus,
};
use gateway_testkit::{MockEngine, Script};
use proptest::prelude::*;

fn link() -> Arc<dyn RunnerLink> {
    MockEngine::new(|_| Script::text("")).link()
}

fn spec(id: &str) -> RunnerSpec {
    RunnerSpec::new(RunnerId::new(id).unwrap())
}

fn model(name: &str) -> ModelId {
    ModelId::new(name).unwrap()
}

fn serving(names: &[&str]) -> RunnerStatus {
    RunnerStatus::serving(names.iter().map(|name| model(name)))
}

#[tokio::test]
async fn a_late_close_does_not_remove_the_new_connection() {
    let registry: Arc<dyn Registry> = Arc::new(InMemoryRegistry::new());
    let old = Membership::join(registry.clone(), spec("r"), serving(&["m"]), link());
    let old_runner = registry.fleet().runner("r").unwrap().clone();
    let new = Membership::join(registry.clone(), spec("r"), serving(&["m"]), link());
    assert_ne!(old.key(), new.key());
    assert!(old_runner.has_left());
    old_runner.left().await;
    assert!(!old.status(serving(&["other"])), "an old connection changes nothing");
    drop(old);
    let fleet = registry.fleet();
    assert_eq!(fleet.runner("r").unwrap().key(), new.key());
    assert!(fleet.model("m").is_some() && fleet.model("other").is_none());
    drop(new);
    assert!(registry.fleet().runners().is_empty());
    assert!(registry.fleet().model("m").is_none());
}

#[tokio::test]
async fn an_operators_drain_outlives_a_connection_that_is_replaced() {
    let registry = InMemoryRegistry::new();
    let key = registry.join(spec("r"), serving(&["m"]), link());
    registry.update(&key, RunnerChange::Drain(true));
    let key = registry.join(spec("r"), serving(&["m"]), link());
    assert!(registry.fleet().runner("r").unwrap().is_draining());
    registry.update(&key, RunnerChange::Drain(false));
    registry.join(spec("r"), serving(&["m"]), link());
    assert!(!registry.fleet().runner("r").unwrap().is_draining());
}

#[tokio::test]
async fn counters_of_two_registrations_are_apart() {
    let registry: Arc<dyn Registry> = Arc::new(InMemoryRegistry::new());
    registry.join(spec("r").slots(1), serving(&["m"]), link());
    let old = registry.fleet().runner("r").unwrap().clone();
    let held = old.try_reserve().unwrap();
    registry.join(spec("r").slots(1), serving(&["m"]), link());
    let new = registry.fleet().runner("r").unwrap().clone();
    assert!(old.try_reserve().is_none(), "who has left takes nothing");
    let other = new.try_reserve().unwrap();
    drop(held);
    assert_eq!((old.load().in_flight, new.load().in_flight), (0, 1));
    drop(other);
}

#[tokio::test]
async fn a_status_changes_the_fleet_at_once() {
    let registry = InMemoryRegistry::new();
    let mut events = registry.events();
    let key = registry.join(spec("r"), serving(&["a"]), link());
    let before = registry.fleet();
    let held = before.runner("r").unwrap().try_reserve().unwrap();
    assert!(registry.update(&key, RunnerChange::Status(serving(&["b"]))));
    let after = registry.fleet();
    assert!(before.model("a").is_some(), "a snapshot never changes");
    assert!(after.model("a").is_none() && after.model("b").is_some());
    assert_eq!(after.runner("r").unwrap().load().in_flight, 1, "counters outlive a change");
    drop(held);
    assert_eq!(after.runner("r").unwrap().load().in_flight, 0);
    let unhealthy = RunnerStatus { health: Health::Unhealthy, ..serving(&["b"]) };
    registry.update(&key, RunnerChange::Status(unhealthy));
    assert!(registry.fleet().model("b").unwrap().loaded().is_empty());
    assert_eq!(registry.fleet().model("b").unwrap().known().len(), 1);
    assert!(!registry.fleet().can_serve());
    assert!(registry.leave(&key, LeaveReason::HeartbeatTimeout));
    assert!(!registry.leave(&key, LeaveReason::HeartbeatTimeout));
    assert_eq!(events.next().await, Some(FleetEvent::Joined(key.clone())));
    assert_eq!(events.next().await, Some(FleetEvent::Changed(key.clone())));
    assert_eq!(events.next().await, Some(FleetEvent::Changed(key.clone())));
    assert_eq!(events.next().await, Some(FleetEvent::Left(key, LeaveReason::HeartbeatTimeout)));
}

#[tokio::test]
async fn a_heartbeat_that_tells_only_of_load_makes_no_snapshot() {
    let registry = InMemoryRegistry::new();
    let key = registry.join(spec("r"), serving(&["a"]), link());
    let before = registry.fleet();
    let status = RunnerStatus { load: Some(ReportedLoad { active: 3, queued: 2 }), ..serving(&["a"]) };
    assert!(registry.update(&key, RunnerChange::Status(status)));
    assert!(Arc::ptr_eq(&before, &registry.fleet()));
    assert_eq!(before.runner("r").unwrap().load().estimate(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_without_a_load_is_still_heard() {
    let registry = InMemoryRegistry::new();
    let key = registry.join(spec("r"), serving(&["m"]), link());
    let runner = registry.fleet().runner("r").unwrap().clone();
    assert_eq!(runner.last_heard(), runner.joined());
    tokio::time::advance(Duration::from_secs(30)).await;
    assert!(registry.update(&key, RunnerChange::Status(serving(&["m"]))));
    assert_eq!(runner.last_heard(), runner.joined() + Duration::from_secs(30));
    assert_eq!(runner.load().report_age, None, "its load stays unknown");
}

#[tokio::test]
async fn a_slow_reader_of_events_is_told_what_it_missed() {
    let registry = InMemoryRegistry::new();
    let mut events = registry.events();
    for _ in 0..FleetEvents::CAPACITY {
        let key = registry.join(spec("r"), serving(&[]), link());
        registry.leave(&key, LeaveReason::Disconnected);
    }
    assert_eq!(events.next().await, Some(FleetEvent::Missed(FleetEvents::CAPACITY as u64)));
    assert!(matches!(events.next().await, Some(FleetEvent::Joined(_))));
}

#[test]
fn models_are_listed_once_and_by_canonical_name() {
    let registry = InMemoryRegistry::new();
    let mut status = serving(&["shared"]);
    status.models.push(Model::loaded(model("public")).with_local_name(model("local.gguf")));
    registry.join(spec("b"), status, link());
    let mut waiting = serving(&[]);
    waiting.models.push(Model::new(model("shared"), ModelState::Available));
    registry.join(spec("a"), waiting, link());
    let fleet = registry.fleet();
    let listed: Vec<_> = fleet.models().into_iter().map(|model| (model.id.as_str(), &model.state)).collect();
    assert_eq!(listed, [("public", &ModelState::Loaded), ("shared", &ModelState::Loaded)]);
    assert_eq!(fleet.model("local.gguf").unwrap().loaded().len(), 1);
    assert_eq!(fleet.runners().iter().map(|r| r.id().as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn two_aliases_of_one_local_name_enter_the_runner_once() {
    let registry = InMemoryRegistry::new();
    let mut status = serving(&[]);
    for name in ["one", "two"] {
        status.models.push(Model::loaded(model(name)).with_local_name(model("local")));
    }
    let key = registry.join(spec("r"), status, link());
    assert_eq!(registry.fleet().model("local").unwrap().loaded().len(), 1);
    registry.leave(&key, LeaveReason::Disconnected);
    assert!(registry.fleet().model("local").is_none());
}

#[derive(Debug, Clone)]
enum Op {
    Join(u8, Vec<u8>, bool),
    Status(u8, Vec<u8>, bool),
    Leave(u8),
    LateLeave(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let models = || proptest::collection::vec(0..4u8, 0..4);
    prop_oneof![
        (0..4u8, models(), any::<bool>()).prop_map(|(id, models, up)| Op::Join(id, models, up)),
        (0..4u8, models(), any::<bool>()).prop_map(|(id, models, up)| Op::Status(id, models, up)),
        (0..4u8).prop_map(Op::Leave),
        (0..4u8).prop_map(Op::LateLeave),
    ]
}

fn status_of(models: &[u8], up: bool) -> RunnerStatus {
    let mut names: Vec<String> = models.iter().map(|m| format!("m{m}")).collect();
    names.sort();
    names.dedup();
    let health = if up { Health::Healthy } else { Health::Unhealthy };
    let mut status = RunnerStatus::serving(names.iter().map(|name| model(name)));
    status.health = health;
    status
}

proptest! {
    /// The index by model always agrees with a plain look through all runners.
    #[test]
    fn the_index_agrees_with_the_runners(ops in proptest::collection::vec(op(), 1..60)) {
        let registry = InMemoryRegistry::new();
        let mut keys: std::collections::HashMap<u8, Vec<_>> = std::collections::HashMap::new();
        for op in ops {
            match op {
                Op::Join(id, models, up) => {
                    let key = registry.join(spec(&format!("r{id}")), status_of(&models, up), link());
                    keys.entry(id).or_default().push(key);
                }
                Op::Status(id, models, up) => {
                    if let Some(key) = keys.get(&id).and_then(|keys| keys.last()) {
                        registry.update(key, RunnerChange::Status(status_of(&models, up)));
                    }
                }
                Op::Leave(id) => {
                    if let Some(key) = keys.get(&id).and_then(|keys| keys.last()) {
                        registry.leave(key, LeaveReason::Disconnected);
                    }
                }
                Op::LateLeave(id) => {
                    let old = keys.get(&id).and_then(|keys| keys.len().checked_sub(2).map(|at| &keys[at]));
                    if let Some(key) = old {
                        prop_assert!(!registry.leave(key, LeaveReason::Disconnected));
                    }
                }
            }
            let fleet = registry.fleet();
            for name in ["m0", "m1", "m2", "m3"] {
                let plain: Vec<_> =
                    fleet.runners().iter().filter(|r| r.model(name).is_some()).map(|r| r.key().clone()).collect();
                let up: Vec<_> = fleet
                    .runners()
                    .iter()
                    .filter(|r| r.model(name).is_some() && r.status().health.is_operational())
                    .map(|r| r.key().clone())
                    .collect();
                let keys = |list: &[Arc<gateway_core::Runner>]| {
                    let mut keys: Vec<_> = list.iter().map(|r| r.key().clone()).collect();
                    keys.sort_by(|a, b| a.id.cmp(&b.id));
                    keys
                };
                match fleet.model(name) {
                    None => prop_assert!(plain.is_empty()),
                    Some(entry) => {
                        prop_assert_eq!(keys(entry.known()), plain);
                        prop_assert_eq!(keys(entry.loaded()), up);
                    }
                }
            }
        }
    }
}
