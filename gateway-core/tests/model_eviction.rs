//! When there is no room for a model, the least recently used one that nothing uses makes way.

mod lifecycle_support;

use std::num::NonZeroU32;
use std::time::Duration;

use gateway_core::{
    CancellationToken, DispatchError, IdleUnload, LifecyclePolicy, LoadError, Loading, ModelState, Registry,
    ReportedLoad, Reservation, RunnerChange, RunnerId, RunnerStatus,
};
use gateway_testkit::{CommandScript, MockEngine};
use lifecycle_support::*;

fn at_most(models: u32) -> LifecyclePolicy {
    LifecyclePolicy { max_loaded: NonZeroU32::new(models), ..LifecyclePolicy::default() }
}

/// Long enough for who waits to have looked again.
async fn a_while() {
    tokio::time::sleep(Duration::from_secs(5)).await;
}

/// Uses models one after the other, so that the first is the least recently used.
async fn use_in_order(world: &World, names: &[&str]) {
    for name in names {
        tokio::time::advance(Duration::from_secs(1)).await;
        world.ask(name).await.unwrap();
    }
}

type Answering = tokio::task::JoinHandle<Result<String, DispatchError>>;

fn waits(loading: Loading) -> tokio::task::JoinHandle<(Result<(), LoadError>, Loading)> {
    let mut loading = loading;
    tokio::spawn(async move { (loading.wait().await, loading) })
}

#[tokio::test(start_paused = true)]
async fn the_least_recently_used_makes_way() {
    let (world, engine) = (world(at_most(3)), engine());
    let on_disk = ["x", "y", "z"].map(on_disk);
    world.join("r", ["a", "b", "c"].map(loaded).into_iter().chain(on_disk), &engine);
    use_in_order(&world, &["b", "c", "a"]).await;
    for (wanted, evicted) in [("x", "b"), ("y", "c"), ("z", "a")] {
        assert_eq!(world.ask(wanted).await.unwrap(), "r");
        assert_eq!(engine.commands().split_off(engine.commands().len() - 2), [unload(evicted), load(wanted)]);
        assert_eq!(world.state("r", evicted), ModelState::Available);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    // Whoever was evicted comes back when it is asked for.
    assert_eq!(world.ask("b").await.unwrap(), "r");
    assert_eq!(engine.commands().split_off(6), [unload("x"), load("b")]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_evicted_while_there_is_room() {
    let (world, engine) = (world(at_most(3)), engine());
    world.join("r", [loaded("a"), loaded("b"), on_disk("x")], &engine);
    world.ask("x").await.unwrap();
    assert_eq!(engine.commands(), [load("x")]);
}

#[tokio::test(start_paused = true)]
async fn who_is_in_use_stays_and_another_runner_loads() {
    let (world, first, second) = (world(at_most(1)), engine(), engine());
    world.join("first", [loaded("a"), on_disk("x")], &first);
    world.join("second", [loaded("b"), loaded("c"), on_disk("x")], &second);
    let _held = world.hold("first", "a");
    // Here two have to go, so the first would have been better.
    assert_eq!(world.ask("x").await.unwrap(), "second");
    assert!(first.commands().is_empty());
    assert_eq!(second.commands().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn who_finds_everything_in_use_waits_until_something_is_not() {
    let (world, engine) = (world(at_most(2)), engine());
    world.join("r", [loaded("a"), loaded("b"), on_disk("x")], &engine);
    let (first, second) = (world.hold("r", "a"), world.hold("r", "b"));
    let more = world.hold("r", "b");
    let requests: Vec<_> = (0..10).map(|_| world.asks("x")).collect();
    a_while().await;
    drop(second);
    a_while().await;
    assert!(engine.commands().is_empty(), "both are in use");
    drop(more);
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap(), "r");
    }
    assert_eq!(engine.commands(), [unload("b"), load("x")]);
    assert_eq!(world.state("r", "a"), ModelState::Loaded);
    drop(first);
}

/// A freed model is seen at once, not at the next look.
#[tokio::test(start_paused = true)]
async fn who_waits_for_room_is_told_of_it() {
    let (world, engine) = (world(at_most(1)), engine());
    world.join("r", [loaded("a"), on_disk("x")], &engine);
    let held = world.hold("r", "a");
    let request = world.asks("x");
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    let freed = tokio::time::Instant::now();
    drop(held);
    told(&engine, 1).await;
    assert_eq!(freed.elapsed(), Duration::ZERO);
    request.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn two_who_wait_for_the_same_room_both_get_it() {
    let (world, engine) = (world(at_most(1)), engine());
    world.join("r", [loaded("a"), on_disk("x"), on_disk("y")], &engine);
    let held = world.hold("r", "a");
    let x = world.asks("x");
    tokio::task::yield_now().await;
    let y = world.asks("y");
    a_while().await;
    drop(held);
    assert_eq!(x.await.unwrap().unwrap(), "r");
    assert_eq!(y.await.unwrap().unwrap(), "r");
    assert_eq!(engine.commands(), [unload("a"), load("x"), unload("x"), load("y")]);
}

#[tokio::test(start_paused = true)]
async fn who_waited_longer_goes_before_who_came_later() {
    let (world, engine) = (world(at_most(1)), engine());
    world.join("r", [loaded("a"), on_disk("x"), on_disk("y")], &engine);
    let held = world.hold("r", "a");
    let first = waits(world.lifecycle().ensure(&wants("x"), &[]).unwrap());
    a_while().await;
    drop(held);
    // The first has not been woken yet.
    let second = waits(world.lifecycle().ensure(&wants("y"), &[]).unwrap());
    let (done, first) = first.await.unwrap();
    done.unwrap();
    assert_eq!(engine.commands(), [unload("a"), load("x")]);
    drop(first);
    second.await.unwrap().0.unwrap();
}

/// Two models that do not fit together: what was loaded for somebody is not evicted before he has had it.
#[tokio::test(start_paused = true)]
async fn what_was_loaded_for_somebody_stays_until_he_has_had_it() {
    let (world, engine) = (world(at_most(1)), engine());
    world.join("r", [on_disk("x"), on_disk("y")], &engine);
    let x = waits(world.lifecycle().ensure(&wants("x"), &[]).unwrap());
    let y = waits(world.lifecycle().ensure(&wants("y"), &[]).unwrap());
    let (done, his) = x.await.unwrap();
    done.unwrap();
    a_while().await;
    assert_eq!(engine.commands(), [load("x")], "nobody uses x, but somebody is about to");
    let held = world.hold("r", "x");
    drop(his);
    a_while().await;
    assert_eq!(engine.commands(), [load("x")]);
    drop(held);
    y.await.unwrap().0.unwrap();
    assert_eq!(engine.commands(), [load("x"), unload("x"), load("y")]);
}

#[tokio::test(start_paused = true)]
async fn memory_that_is_short_is_made() {
    let (world, engine) = (world(LifecyclePolicy::default()), engine());
    let models = [sized(loaded("a"), 10), sized(loaded("b"), 10), sized(loaded("c"), 40)];
    let disk = [sized(on_disk("x"), 30), sized(on_disk("small"), 5)];
    let status = with_memory(healthy(models.into_iter().chain(disk)), 100.0, 15.0);
    world.registry.join(spec("r"), status, engine.link());
    use_in_order(&world, &["b", "a", "c"]).await;
    world.ask("small").await.unwrap();
    assert_eq!(engine.commands(), [load("small")], "6 GB fit");
    // 36 GB are needed, 15 are free, and a and b give back 12 each.
    world.ask("x").await.unwrap();
    assert_eq!(engine.commands().split_off(1), [unload("b"), unload("a"), load("x")]);
}

#[tokio::test(start_paused = true)]
async fn the_memory_factor_has_an_effect() {
    for (factor, fits) in [(1.0, true), (1.2, false)] {
        let world = world(LifecyclePolicy { memory_factor: factor, ..LifecyclePolicy::default() });
        let engine = engine();
        let status = with_memory(healthy([sized(on_disk("x"), 90)]), 100.0, 100.0);
        world.registry.join(spec("r"), status, engine.link());
        assert_eq!(world.ask("x").await.is_ok(), fits);
        assert_eq!(engine.commands().len(), usize::from(fits), "108 GB never fit");
    }
}

#[tokio::test(start_paused = true)]
async fn known_memory_goes_before_unknown_and_fewest_models_first() {
    let engine = engine();
    let in_memory = |names: &[&str]| names.iter().map(|name| loaded(name)).collect::<Vec<_>>();
    let with = |names: &[&str]| -> RunnerStatus {
        healthy(in_memory(names).into_iter().chain([sized(on_disk("x"), 10)]))
    };
    let world = world(LifecyclePolicy::default());
    let join = |id: &str, status: RunnerStatus| world.registry.join(spec(id), status, engine.link());
    join("unknown", with(&[]));
    join("two", with_memory(with(&["a", "b"]), 100.0, 50.0));
    join("one", with_memory(with(&["a"]), 100.0, 50.0));
    join("small", with_memory(with(&[]), 8.0, 8.0));
    assert_eq!(world.ask("x").await.unwrap(), "one");
}

#[tokio::test(start_paused = true)]
async fn unknown_memory_is_better_than_none() {
    let (world, engine) = (world(LifecyclePolicy::default()), engine());
    let small = with_memory(healthy([sized(on_disk("x"), 10)]), 8.0, 8.0);
    world.registry.join(spec("small"), small, engine.link());
    assert!(world.ask("x").await.is_err());
    world.join("unknown", [on_disk("x")], &engine);
    assert_eq!(world.ask("x").await.unwrap(), "unknown");
}

#[tokio::test(start_paused = true)]
async fn equals_are_chosen_without_bias() {
    let mut chosen = std::collections::HashMap::<String, u32>::new();
    for _ in 0..300 {
        let (world, engine) = (world(LifecyclePolicy::default()), engine());
        for id in ["a", "b", "c"] {
            world.join(id, [on_disk("x")], &engine);
        }
        *chosen.entry(world.ask("x").await.unwrap()).or_default() += 1;
    }
    // Four standard deviations around a hundred.
    assert!(chosen.len() == 3 && chosen.values().all(|times| (67..=133).contains(times)), "{chosen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_less_busy_runner_loads() {
    let (world, engine) = (world(LifecyclePolicy::default()), engine());
    for id in ["a", "b", "c"] {
        world.registry.join(spec(id).slots(4), healthy([loaded("m"), on_disk("x")]), engine.link());
    }
    let _held = [world.hold("a", "m"), world.hold("c", "m")];
    assert_eq!(world.ask("x").await.unwrap(), "b");
}

#[tokio::test(start_paused = true)]
async fn limits_of_one_runner_go_before_those_of_all() {
    let limit = |models| NonZeroU32::new(models).unwrap();
    let id = RunnerId::new("named").unwrap();
    let policy = at_most(3).max_loaded_on(id, limit(1));
    let world = world(policy);
    let mut evicted = Vec::new();
    for id in ["plain", "labelled", "named"] {
        let engine = engine();
        let spec = match id {
            "plain" => spec(id),
            _ => spec(id).label(LifecyclePolicy::MAX_LOADED_LABEL, "2"),
        };
        let (wanted, zone) = (format!("x-{id}"), loaded("a"));
        let models = [zone, loaded("b"), loaded("c"), on_disk(&wanted)];
        world.registry.join(spec, healthy(models), engine.link());
        world.ask(&wanted).await.unwrap();
        evicted.push(engine.commands().len() - 1);
    }
    assert_eq!(evicted, [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn what_is_pinned_stays() {
    let (world, engine) = (world(at_most(2).pin(model("a"))), engine());
    world.join("r", [loaded("a"), loaded("b"), on_disk("x"), on_disk("y")], &engine);
    use_in_order(&world, &["a", "b"]).await;
    world.ask("x").await.unwrap();
    assert_eq!(engine.commands(), [unload("b"), load("x")]);
    let all = at_most(1).pin(model("a"));
    let world = self::world(all);
    world.join("r", [loaded("a"), on_disk("x")], &engine);
    assert!(world.ask("x").await.is_err(), "there will never be room");
}

#[tokio::test(start_paused = true)]
async fn what_others_use_stays() {
    let (world, engine) = (world(at_most(1)), engine());
    let status = |active| RunnerStatus {
        load: Some(ReportedLoad { active, queued: 0 }),
        ..healthy([loaded("a"), on_disk("x")])
    };
    let key = world.registry.join(spec("r"), status(2), engine.link());
    let request = world.asks("x");
    a_while().await;
    assert!(engine.commands().is_empty(), "somebody else's requests may be for a");
    world.registry.update(&key, RunnerChange::Status(status(0)));
    assert_eq!(request.await.unwrap().unwrap(), "r");
}

#[tokio::test(start_paused = true)]
async fn a_request_for_no_model_in_particular_may_use_any() {
    let (world, engine) = (world(at_most(1)), engine());
    world.join("r", [loaded("a"), on_disk("x")], &engine);
    let held = world.registry.fleet().runner("r").unwrap().try_reserve().unwrap();
    let request = world.asks("x");
    a_while().await;
    assert!(engine.commands().is_empty());
    drop(held);
    assert_eq!(request.await.unwrap().unwrap(), "r");
}

#[tokio::test(start_paused = true)]
async fn names_that_stand_for_one_model_are_one_model() {
    let (world, engine) = (world(at_most(1)), engine());
    let named = |name: &str| loaded(name).with_local_name(model("file.gguf"));
    world.join("r", [named("a"), named("b"), on_disk("x")], &engine);
    let held = world.hold("r", "b");
    let request = world.asks("x");
    a_while().await;
    assert!(engine.commands().is_empty(), "a is b, and b is in use");
    drop(held);
    assert_eq!(request.await.unwrap().unwrap(), "r");
    assert_eq!(engine.commands().len(), 2, "one has to go, not two");
    for name in ["a", "b", "file.gguf"] {
        assert_eq!(world.state("r", name), ModelState::Available);
    }
}

#[tokio::test(start_paused = true)]
async fn one_thing_at_a_time_on_one_runner() {
    let (world, engine) = (world(LifecyclePolicy::default()), engine());
    world.join("r", [on_disk("x"), on_disk("y")], &engine);
    let begun = tokio::time::Instant::now();
    let (x, y) = (world.asks("x"), world.asks("y"));
    x.await.unwrap().unwrap();
    y.await.unwrap().unwrap();
    assert_eq!(begun.elapsed(), LOAD * 2);
}

#[tokio::test(start_paused = true)]
async fn an_unload_that_was_given_up_is_unsure_until_the_runner_speaks() {
    let world = world(at_most(1));
    let engine = scripted(|_| CommandScript::never());
    let key = world.join("r", [loaded("a"), on_disk("x")], &engine);
    let request = world.asks("x");
    told(&engine, 1).await;
    assert_eq!(world.state("r", "a"), ModelState::Unloading);
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    assert_eq!(world.state("r", "a"), ModelState::Unloading, "the runner may be at it");
    assert_eq!(world.state("r", "x"), ModelState::Available);
    let runner = world.registry.fleet().runner("r").unwrap().clone();
    assert!(runner.try_reserve_for(&wants("a")).is_none());
    world.say(&key, healthy([loaded("a"), on_disk("x")]));
    assert_eq!(world.state("r", "a"), ModelState::Loaded);
    assert!(runner.try_reserve_for(&wants("a")).is_some(), "open again");
}

#[tokio::test(start_paused = true)]
async fn an_unload_that_is_refused_leaves_the_model_and_the_runner_is_spared_for_a_while() {
    let world = world(at_most(1));
    let engine = scripted(|command| match command {
        gateway_core::Command::UnloadModel(_) => CommandScript::refused("it is mine"),
        _ => CommandScript::done(),
    });
    world.join("r", [loaded("a"), on_disk("x")], &engine);
    let request = world.asks("x");
    a_while().await;
    assert_eq!(engine.commands(), [unload("a")]);
    assert_eq!(world.state("r", "a"), ModelState::Loaded);
    assert_eq!(world.ask("a").await.unwrap(), "r");
    tokio::time::sleep(LifecyclePolicy::SHORTEST_PAUSE).await;
    assert_eq!(engine.commands(), [unload("a"), unload("a")], "tried again");
    request.abort();
}

#[tokio::test(start_paused = true)]
async fn an_unload_that_takes_too_long_is_unsure() {
    let limit = Duration::from_secs(3);
    let world = world(LifecyclePolicy { unload_timeout: limit, ..at_most(1) });
    let engine: MockEngine = scripted(|_| CommandScript::never());
    world.join("r", [loaded("a"), on_disk("x")], &engine);
    let request = world.asks("x");
    tokio::time::sleep(limit + Duration::from_millis(1)).await;
    assert_eq!(engine.command_counts().given_up, 1);
    assert_eq!(world.state("r", "a"), ModelState::Unloading);
    request.abort();
}

/// Two models share the one slot: one has it, and a request waits for it with the other.
async fn one_waits_with_b_while_a_has_the_slot(
    policy: LifecyclePolicy,
) -> (World, MockEngine, Reservation, Answering) {
    let (world, engine) = (world(policy), engine());
    let models = [loaded("a"), loaded("b"), on_disk("c")];
    world.registry.join(spec("r").slots(1), healthy(models), engine.link());
    let held = world.hold("r", "a");
    let waits = world.asks("b");
    tokio::task::yield_now().await;
    assert_eq!(world.dispatcher.queue_depth(), 1);
    (world, engine, held, waits)
}

#[tokio::test(start_paused = true)]
async fn what_somebody_waits_for_a_slot_with_stays() {
    let (world, engine, held, b) = one_waits_with_b_while_a_has_the_slot(at_most(2)).await;
    let c = world.asks("c");
    a_while().await;
    assert!(engine.commands().is_empty(), "a is in use, and b is about to be");
    drop(held);
    assert_eq!(b.await.unwrap().unwrap(), "r");
    assert_eq!(c.await.unwrap().unwrap(), "r");
    assert_eq!(engine.commands(), [unload("a"), load("c")]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_any_more_makes_way_at_once() {
    let (world, engine, _held, b) = one_waits_with_b_while_a_has_the_slot(at_most(2)).await;
    let _c = world.asks("c");
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    assert!(engine.commands().is_empty());
    let gone = tokio::time::Instant::now();
    b.abort();
    told(&engine, 2).await;
    assert_eq!(gone.elapsed(), Duration::ZERO);
    assert_eq!(engine.commands(), [unload("b"), load("c")]);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_waits_for_a_slot_with_is_not_idle() {
    let keep = Duration::from_secs(5);
    let policy = LifecyclePolicy {
        keep_alive: Some(keep),
        idle_unload: IdleUnload::All,
        ..LifecyclePolicy::default()
    };
    let (world, engine, held, b) = one_waits_with_b_while_a_has_the_slot(policy).await;
    let (lifecycle, stop) = (world.lifecycle().clone(), CancellationToken::new());
    let token = stop.clone();
    let tending = tokio::spawn(async move { lifecycle.tend(&token).await });
    tokio::time::sleep(keep * 3).await;
    assert!(engine.commands().is_empty());
    drop(held);
    assert_eq!(b.await.unwrap().unwrap(), "r");
    stop.cancel();
    tending.await.unwrap();
}
