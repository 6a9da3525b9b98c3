//! A class of models that are on disk: the one that can be had first is loaded, and the next if that fails.

mod lifecycle_support;

use std::num::NonZeroU32;
use std::time::Duration;

use gateway_core::{
    DispatchErrorKind, Dispatcher, InMemoryRegistry, LifecyclePolicy, ModelRoutes, ModelState, Registry,
};
use gateway_testkit::CommandScript;
use lifecycle_support::*;
use tokio::time::Instant;

/// One model in each runner's memory, and `class:big` for `a` and `b`.
fn world() -> World {
    let registry = std::sync::Arc::new(InMemoryRegistry::new());
    let policy = LifecyclePolicy { max_loaded: NonZeroU32::new(1), ..LifecyclePolicy::default() };
    let routes = ModelRoutes::builder().class("big", ["a", "b"]).build().unwrap();
    let dispatcher = Dispatcher::builder(registry.clone()).lifecycle(policy).routes(routes).build();
    World { registry, dispatcher }
}

#[tokio::test(start_paused = true)]
async fn a_model_with_room_goes_before_one_that_would_have_to_wait_for_it() {
    let (world, full, empty) = (world(), engine(), engine());
    world.join("full", [loaded("other"), on_disk("a")], &full);
    world.join("empty", [on_disk("b")], &empty);
    let held = world.hold("full", "other");
    let began = Instant::now();
    assert_eq!(world.ask("class:big").await.unwrap(), "empty");
    assert_eq!(began.elapsed(), LOAD);
    assert!(full.commands().is_empty());
    assert_eq!(world.lifecycle().waiting(), 0, "nobody stands in line for the other");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn without_room_for_any_the_first_is_waited_for() {
    let (world, full) = (world(), engine());
    world.join("full", [loaded("other"), on_disk("a"), on_disk("b")], &full);
    let held = world.hold("full", "other");
    let asked = world.asks("class:big");
    while world.lifecycle().waiting() == 0 {
        tokio::task::yield_now().await;
    }
    drop(held);
    assert_eq!(asked.await.unwrap().unwrap(), "full");
    assert_eq!(full.commands(), [unload("other"), load("a")]);
}

#[tokio::test(start_paused = true)]
async fn when_the_first_cannot_be_loaded_the_next_is() {
    let (world, bad, good) = (world(), scripted(|_| CommandScript::refused("bad file")), engine());
    world.join("bad", [on_disk("a")], &bad);
    world.join("good", [on_disk("b")], &good);
    assert_eq!(world.ask("class:big").await.unwrap(), "good");
    assert_eq!((bad.commands(), good.commands()), (vec![load("a")], vec![load("b")]));
}

#[tokio::test(start_paused = true)]
async fn when_none_can_be_loaded_that_is_said() {
    let (world, bad) = (world(), scripted(|_| CommandScript::refused("bad file")));
    world.join("first", [on_disk("a")], &bad);
    world.join("second", [on_disk("b")], &bad);
    assert_eq!(world.ask("class:big").await.unwrap_err().kind(), DispatchErrorKind::ModelNotLoaded);
    assert_eq!(bad.commands(), [load("a"), load("b")]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_one_takes_another_that_is_there_first() {
    let (world, slow, other) = (world(), engine(), engine());
    world.join("slow", [on_disk("a")], &slow);
    let began = Instant::now();
    let asked = world.asks("class:big");
    told(&slow, 1).await;
    tokio::time::advance(Duration::from_secs(3)).await;
    world.join("other", [loaded("b")], &other);
    assert_eq!(asked.await.unwrap().unwrap(), "other");
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    assert_eq!(slow.command_counts().given_up, 1, "nobody waits for it any more");
    assert_eq!(world.state("slow", "a"), ModelState::Available);
    assert!(world.registry.fleet().runner("other").is_some());
}
