//! What the gateway does to a model counts beside what the runner says, and nobody begins to use a model that
//! is being unloaded, whatever snapshot he picked from.

mod lifecycle_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use gateway_core::{
    InMemoryRegistry, LifecyclePolicy, Model, ModelChange, ModelState, Registry, RunnerChange, RunnerKey,
};
use gateway_testkit::{CommandScript, MockEngine, Script};
use lifecycle_support::*;
use proptest::prelude::*;

fn change(registry: &InMemoryRegistry, key: &RunnerKey, name: &str, change: ModelChange) -> bool {
    registry.update(key, RunnerChange::Model(model(name), change))
}

fn one_runner(models: impl IntoIterator<Item = Model>) -> (World, RunnerKey) {
    let world = world(LifecyclePolicy::default());
    let key = world.join("r", models, &engine());
    (world, key)
}

#[tokio::test]
async fn a_model_in_use_cannot_be_closed() {
    let (world, key) = one_runner([loaded("a")]);
    let held = world.hold("r", "a");
    assert!(!change(&world.registry, &key, "a", ModelChange::Unloading));
    assert_eq!(world.state("r", "a"), ModelState::Loaded, "nothing has happened");
    let more = world.hold("r", "a");
    drop((held, more));
    assert!(change(&world.registry, &key, "a", ModelChange::Unloading));
    assert_eq!(world.state("r", "a"), ModelState::Unloading);
}

#[tokio::test]
async fn a_closed_model_cannot_be_reserved_from_an_old_snapshot() {
    let (world, key) = one_runner([loaded("a"), loaded("b")]);
    let old = world.registry.fleet().runner("r").unwrap().clone();
    assert!(change(&world.registry, &key, "a", ModelChange::Unloading));
    assert!(old.try_reserve_for(&wants("a")).is_none());
    assert!(old.try_reserve_for(&wants("b")).is_some());
    assert_eq!(old.load().in_flight, 0, "a slot that was refused is not kept");
    assert!(change(&world.registry, &key, "a", ModelChange::Ended(ModelState::Available)));
    assert!(old.try_reserve_for(&wants("a")).is_none(), "it is gone");
    assert!(change(&world.registry, &key, "a", ModelChange::Loading));
    assert!(change(&world.registry, &key, "a", ModelChange::Ended(ModelState::Loaded)));
    assert!(old.try_reserve_for(&wants("a")).is_some(), "it is there again");
}

#[tokio::test]
async fn one_order_at_a_time() {
    let (world, key) = one_runner([loaded("a"), on_disk("x")]);
    assert!(change(&world.registry, &key, "x", ModelChange::Loading));
    assert!(!change(&world.registry, &key, "x", ModelChange::Loading));
    assert!(!change(&world.registry, &key, "x", ModelChange::Unloading));
    assert!(change(&world.registry, &key, "x", ModelChange::AsReported));
    assert!(change(&world.registry, &key, "x", ModelChange::Loading));
    assert!(!change(&world.registry, &key, "nobody's", ModelChange::Loading));
}

#[tokio::test]
async fn orders_outlive_reports_and_what_is_known_lasts_until_the_next() {
    let (world, key) = one_runner([loaded("a"), on_disk("x")]);
    let registry = &world.registry;
    let as_before = || world.say(&key, healthy([loaded("a"), on_disk("x")]));
    assert!(change(registry, &key, "a", ModelChange::Unloading));
    assert!(change(registry, &key, "x", ModelChange::Loading));
    as_before();
    assert_eq!(world.state("r", "a"), ModelState::Unloading);
    assert_eq!(world.state("r", "x"), ModelState::Loading { progress: None });
    change(registry, &key, "a", ModelChange::Ended(ModelState::Available));
    change(registry, &key, "x", ModelChange::Ended(ModelState::Loaded));
    assert_eq!(world.state("r", "a"), ModelState::Available);
    assert_eq!(world.state("r", "x"), ModelState::Loaded);
    assert!(registry.fleet().model("a").unwrap().loaded().is_empty());
    assert_eq!(registry.fleet().model("x").unwrap().loaded().len(), 1);
    as_before();
    assert_eq!(world.state("r", "a"), ModelState::Loaded);
    assert_eq!(world.state("r", "x"), ModelState::Available);
    // What is known is what the next order starts from.
    change(registry, &key, "a", ModelChange::Ended(ModelState::Available));
    change(registry, &key, "a", ModelChange::Loading);
    assert_eq!(world.state("r", "a"), ModelState::Loading { progress: None });
    change(registry, &key, "a", ModelChange::AsReported);
    assert_eq!(world.state("r", "a"), ModelState::Available);
    change(registry, &key, "x", ModelChange::Ended(ModelState::Failed { message: None }));
    as_before();
    assert_eq!(world.state("r", "x"), ModelState::Failed { message: None }, "until it loads");
    world.say(&key, healthy([loaded("a"), loaded("x")]));
    assert_eq!(world.state("r", "x"), ModelState::Loaded);
    as_before();
    assert_eq!(world.state("r", "x"), ModelState::Available);
}

#[tokio::test]
async fn a_report_that_says_nothing_new_makes_no_snapshot() {
    let (world, key) = one_runner([on_disk("x")]);
    change(&world.registry, &key, "x", ModelChange::Loading);
    let version = world.registry.fleet().version();
    world.say(&key, healthy([on_disk("x")]));
    assert_eq!(world.registry.fleet().version(), version);
    world.say(&key, healthy([Model::new(model("x"), ModelState::Loading { progress: Some(0.5) })]));
    assert!(world.registry.fleet().version() > version);
}

#[tokio::test]
async fn a_model_that_is_not_listed_for_a_while_is_still_in_use() {
    let (world, key) = one_runner([loaded("a")]);
    let held = world.hold("r", "a");
    world.say(&key, healthy([]));
    world.say(&key, healthy([loaded("a")]));
    assert!(!change(&world.registry, &key, "a", ModelChange::Unloading), "it never stopped");
    drop(held);
    assert!(change(&world.registry, &key, "a", ModelChange::Unloading));
}

proptest! {
    /// Whatever is ordered and reported in whatever order: a model shows as serving only if it can be used,
    /// and nobody uses one that is being unloaded.
    #[test]
    fn what_shows_as_serving_can_be_used(ops in proptest::collection::vec((0..9u8, any::<bool>()), 1..60)) {
        let (world, key) = one_runner([loaded("a"), on_disk("x")]);
        let registry = &world.registry;
        let mut held = Vec::new();
        let mut snapshots = vec![registry.fleet()];
        for (op, first) in ops {
            let name = if first { "a" } else { "x" };
            match op {
                0 => {
 change(registry, &key, name, ModelChange::Unloading);
}
                1 => {
 change(registry, &key, name, ModelChange::Loading);
}
                2 => {
 change(registry, &key, name, ModelChange::Unknown);
}
                3 => {
 change(registry, &key, name, ModelChange::AsReported);
}
                4 => {
                    let state = if first { ModelState::Loaded } else { ModelState::Available };
                    change(registry, &key, name, ModelChange::Ended(state));
                }
                5 => world.say(&key, healthy([loaded("a"), loaded("x")])),
                6 => world.say(&key, healthy([if first { loaded("a") } else { on_disk("a") }, on_disk("x")])),
                7 => {
                    // From any snapshot there ever was.
                    let runner = snapshots[held.len() % snapshots.len()].runner("r").unwrap().clone();
                    held.extend(runner.try_reserve_for(&wants(name)));
                }
                _ => held.truncate(held.len() / 2),
            }
            let fleet = registry.fleet();
            let runner = fleet.runner("r").unwrap();
            for name in ["a", "x"] {
                let state = &runner.model(name).unwrap().state;
                let (in_flight, _) = runner.model_usage(name).unwrap();
                let can_be_used = runner.try_reserve_for(&wants(name)).is_some();
                match state {
                    ModelState::Loaded | ModelState::OnDemand => prop_assert!(can_be_used),
                    ModelState::Unloading => prop_assert!(!can_be_used && in_flight == 0),
                    _ => {}
                }
            }
            snapshots.push(fleet);
        }
        drop(held);
        prop_assert_eq!(registry.fleet().runner("r").unwrap().load().in_flight, 0);
    }
}

/// Many threads reserve from snapshots of whatever age while one closes and opens the model.
#[test]
fn nobody_uses_a_model_that_is_unloaded() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (world, key) = runtime.block_on(async { one_runner([loaded("a")]) });
    let registry = &world.registry;
    let is_out = AtomicBool::new(false);
    let over = AtomicBool::new(false);
    let used = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let (registry, is_out, over, used) = (registry, &is_out, &over, &used);
            scope.spawn(move || {
                let mut fleet = registry.fleet();
                let mut turn = thread;
                while !over.load(Ordering::Relaxed) {
                    turn = turn.wrapping_add(1);
                    // One of them never looks again.
                    if thread > 0 && turn.is_multiple_of(thread) {
                        fleet = registry.fleet();
                    }
                    let runner = fleet.runner("r").unwrap();
                    if let Some(held) = runner.try_reserve_for(&wants("a")) {
                        for _ in 0..10 {
                            assert!(!is_out.load(Ordering::SeqCst), "it uses what is not there");
                        }
                        used.fetch_add(1, Ordering::Relaxed);
                        drop(held);
                    }
                    std::thread::yield_now();
                }
            });
        }
        let mut unloaded = 0;
        for _ in 0..500_000 {
            if change(registry, &key, "a", ModelChange::Unloading) {
                is_out.store(true, Ordering::SeqCst);
                unloaded += 1;
                let ended = ModelChange::Ended(ModelState::Available);
                assert!(change(registry, &key, "a", ended));
                std::thread::yield_now();
                assert!(change(registry, &key, "a", ModelChange::Loading));
                is_out.store(false, Ordering::SeqCst);
                assert!(change(registry, &key, "a", ModelChange::Ended(ModelState::Loaded)));
            }
            if unloaded >= 3_000 && used.load(Ordering::Relaxed) >= 1_000 {
                break;
            }
            std::thread::yield_now();
        }
        over.store(true, Ordering::Relaxed);
        assert!(unloaded > 100 && used.load(Ordering::Relaxed) > 100, "{unloaded} times out of memory");
    });
}

/// An engine that knows what it has in memory, and notes when it is asked for something else.
fn strict(wrong: &Arc<AtomicU32>) -> MockEngine {
    let in_memory = Arc::new(std::sync::Mutex::new(String::new()));
    let engine = {
        let (in_memory, wrong) = (in_memory.clone(), wrong.clone());
        MockEngine::new(move |seen| {
            if *in_memory.lock().unwrap() != std::str::from_utf8(&seen.body).unwrap() {
                wrong.fetch_add(1, Ordering::Relaxed);
            }
            Script::text("fine")
        })
    };
    let (itself, wrong) = (engine.clone(), wrong.clone());
    engine.script_commands(move |command| {
        match command {
            gateway_core::Command::LoadModel(model) => *in_memory.lock().unwrap() = model.to_string(),
            gateway_core::Command::UnloadModel(_) => {
                wrong.fetch_add(itself.counts().active() as u32, Ordering::Relaxed);
                in_memory.lock().unwrap().clear();
            }
            gateway_core::Command::Status => {}
        }
        CommandScript::done()
    });
    engine
}

fn one_at_a_time() -> LifecyclePolicy {
    LifecyclePolicy { max_loaded: std::num::NonZeroU32::new(1), ..LifecyclePolicy::default() }
}

async fn ask_in_turn(world: Arc<World>, from: usize, times: usize) {
    let names = ["x", "y", "z"];
    for turn in from..from + times {
        let name = names[turn % names.len()];
        let answer = world.dispatcher.dispatch(gateway_testkit::request(&model(name), name)).await.unwrap();
        assert_eq!(gateway_testkit::text(answer.response).await.unwrap(), "fine");
    }
}

/// Three models share the room for one on each of two runners, and everybody wants all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn models_that_take_turns_are_never_asked_for_while_they_are_out() {
    let wrong = Arc::new(AtomicU32::new(0));
    let engines = [strict(&wrong), strict(&wrong)];
    let world = Arc::new(world(one_at_a_time()));
    for (id, engine) in ["a", "b"].iter().zip(&engines) {
        world.join(id, ["x", "y", "z"].map(on_disk), engine);
    }
    let tasks: Vec<_> = (0..8).map(|task| tokio::spawn(ask_in_turn(world.clone(), task, 40))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(wrong.load(Ordering::Relaxed), 0);
    let evictions: usize = engines.iter().map(|engine| engine.commands().len()).sum();
    assert!(evictions > 20, "they hardly took turns: {evictions} commands");
    gateway_testkit::assert_all_zero(&world.dispatcher, &engines).await;
}

/// The same under paused time, where a wake-up that is lost shows as time that passes.
#[tokio::test(start_paused = true)]
async fn models_that_take_turns_wait_for_nothing_but_each_other() {
    let wrong = Arc::new(AtomicU32::new(0));
    let engine = strict(&wrong);
    let world = Arc::new(world(one_at_a_time()));
    world.join("a", ["x", "y", "z"].map(on_disk), &engine);
    let begun = tokio::time::Instant::now();
    let tasks: Vec<_> = (0..9).map(|task| tokio::spawn(ask_in_turn(world.clone(), task, 30))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(wrong.load(Ordering::Relaxed), 0);
    assert_eq!(begun.elapsed(), std::time::Duration::ZERO);
}
