//! Models are loaded and unloaded because somebody says so, and no request goes to one that is on its way out.

mod lifecycle_support;

use gateway_core::{LifecyclePolicy, ModelState, OrderError, Registry};
use gateway_testkit::CommandScript;
use lifecycle_support::*;

#[tokio::test(start_paused = true)]
async fn a_model_is_closed_before_the_runner_is_told_to_unload_it() {
    let world = world(LifecyclePolicy::off());
    let engine = scripted(|_| CommandScript::done().after(LOAD));
    world.join("r", [loaded("m")], &engine);
    let runner = world.registry.fleet().runner("r").unwrap().clone();
    let (lifecycle, there) = (world.lifecycle().clone(), runner.clone());
    let unloading = tokio::spawn(async move { lifecycle.unload(&there, &model("m"), false).await });
    told(&engine, 1).await;
    assert_eq!(world.state("r", "m"), ModelState::Unloading);
    assert!(runner.try_reserve_for(&wants("m")).is_none(), "not from an old snapshot either");
    let again = world.lifecycle().unload(&runner, &model("m"), true).await;
    assert!(matches!(again, Err(OrderError::UnderWay { .. })), "{again:?}");
    unloading.await.unwrap().unwrap();
    assert_eq!(world.state("r", "m"), ModelState::Available);
    assert_eq!(engine.commands(), [unload("m")]);
}

#[tokio::test(start_paused = true)]
async fn a_model_in_use_stays_unless_it_is_forced() {
    let (world, engine) = (world(LifecyclePolicy::off()), engine());
    world.join("r", [loaded("m")], &engine);
    let runner = world.registry.fleet().runner("r").unwrap().clone();
    let held = world.hold("r", "m");
    let refused = world.lifecycle().unload(&runner, &model("m"), false).await.unwrap_err();
    assert!(
        matches!(refused, OrderError::InUse { .. }) && refused.to_string().contains("force"),
        "{refused}"
    );
    assert!(engine.commands().is_empty());
    assert_eq!(world.state("r", "m"), ModelState::Loaded);
    world.lifecycle().unload(&runner, &model("m"), true).await.unwrap();
    assert_eq!(world.state("r", "m"), ModelState::Available);
    assert!(runner.try_reserve_for(&wants("m")).is_none());
    drop(held);
    // Loaded again it can be used again, also by who saw it before.
    world.lifecycle().load(&runner, &model("m")).await.unwrap();
    assert_eq!(engine.commands(), [unload("m"), load("m")]);
    assert!(runner.try_reserve_for(&wants("m")).is_some());
    gateway_testkit::assert_all_zero(&world.dispatcher, [&engine]).await;
}

#[tokio::test(start_paused = true)]
async fn a_model_that_somebody_waits_for_a_slot_with_is_in_use() {
    let (world, engine) = (world(LifecyclePolicy::off()), engine());
    world.registry.join(spec("r").slots(1), healthy([loaded("a"), loaded("b")]), engine.link());
    let held = world.hold("r", "a");
    let waits = world.asks("b");
    tokio::task::yield_now().await;
    let runner = held.runner().clone();
    let refused = world.lifecycle().unload(&runner, &model("b"), false).await;
    assert!(matches!(refused, Err(OrderError::InUse { .. })), "{refused:?}");
    drop(held);
    waits.await.unwrap().unwrap();
    world.lifecycle().unload(&runner, &model("b"), false).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_the_runner_does_not_do_is_undone() {
    let world = world(LifecyclePolicy::off());
    let engine = scripted(|_| CommandScript::refused("it is mine"));
    world.join("r", [loaded("m"), on_disk("x")], &engine);
    let runner = world.registry.fleet().runner("r").unwrap().clone();
    let refused = world.lifecycle().unload(&runner, &model("m"), false).await.unwrap_err();
    assert_eq!(refused.to_string(), "it is mine");
    assert!(runner.try_reserve_for(&wants("m")).is_some(), "open again");
    assert!(world.lifecycle().load(&runner, &model("x")).await.is_err());
    assert_eq!(world.state("r", "x"), ModelState::Available);
    // What the fleet does not know the runner may.
    assert!(world.lifecycle().load(&runner, &model("unheard-of")).await.is_err());
    assert_eq!(engine.commands().last(), Some(&load("unheard-of")));
}

#[tokio::test(start_paused = true)]
async fn a_load_by_hand_is_waited_for_by_requests() {
    let (world, engine) = (world(LifecyclePolicy::default()), engine());
    for id in ["r", "other"] {
        world.join(id, [on_disk("m")], &engine);
    }
    let runner = world.registry.fleet().runner("r").unwrap().clone();
    let lifecycle = world.lifecycle().clone();
    let loading = tokio::spawn(async move { lifecycle.load(&runner, &model("m")).await });
    told(&engine, 1).await;
    assert!(matches!(world.state("r", "m"), ModelState::Loading { .. }));
    assert_eq!(world.ask("m").await.unwrap(), "r");
    loading.await.unwrap().unwrap();
    assert_eq!(engine.commands(), [load("m")]);
}

#[tokio::test(start_paused = true)]
async fn an_unload_that_is_lost_is_unsure_until_the_runner_speaks() {
    let world = world(LifecyclePolicy::off());
    let engine = scripted(|_| CommandScript::never());
    let key = world.join("r", [loaded("m")], &engine);
    let runner = world.registry.fleet().runner("r").unwrap().clone();
    let lifecycle = world.lifecycle().clone();
    let unloading = tokio::spawn(async move { lifecycle.unload(&runner, &model("m"), false).await });
    told(&engine, 1).await;
    unloading.abort();
    assert!(unloading.await.unwrap_err().is_cancelled());
    assert_eq!(world.state("r", "m"), ModelState::Unloading);
    world.say(&key, healthy([loaded("m")]));
    assert_eq!(world.state("r", "m"), ModelState::Loaded);
}
