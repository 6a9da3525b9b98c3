//! How long a request waits in all, for a slot and for its model.

mod lifecycle_support;

use std::num::NonZeroU32;
use std::time::Duration;

use gateway_core::{DispatchError, DispatchErrorKind, Dispatched, LifecyclePolicy, QueuePolicy, Registry};
use gateway_testkit::CommandScript;
use lifecycle_support::*;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn ask(world: &World, patience: Option<Duration>) -> JoinHandle<Result<Dispatched, DispatchError>> {
    let (dispatcher, mut call) = (world.dispatcher.clone(), gateway_testkit::request(&model("m"), "{}"));
    call.claim.patience = patience;
    tokio::spawn(async move { dispatcher.dispatch(call).await })
}

#[tokio::test(start_paused = true)]
async fn it_is_one_for_the_model_and_the_slot() {
    let (world, engine) = (world(LifecyclePolicy::default()), engine());
    let first = world.registry.join(spec("r").slots(1), healthy([on_disk("m")]), engine.link());
    let began = Instant::now();
    let asked = ask(&world, Some(LOAD + 5 * SECOND));
    told(&engine, 1).await;
    // Loaded by the time, but then another has the slot.
    tokio::time::advance(LOAD - SECOND).await;
    world.say(&first, healthy([loaded("m")]));
    let _held = world.hold("r", "m");
    assert_eq!(asked.await.unwrap().unwrap_err().kind(), DispatchErrorKind::QueueTimeout);
    assert_eq!(began.elapsed(), LOAD + 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn room_for_a_model_is_waited_for_as_long_as_a_slot() {
    let policy = LifecyclePolicy { max_loaded: NonZeroU32::new(1), ..LifecyclePolicy::default() };
    let (world, engine) = (world(policy), engine());
    world.join("r", [loaded("other"), on_disk("m")], &engine);
    let held = world.hold("r", "other");
    let began = Instant::now();
    let error = ask(&world, None).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), began.elapsed()), (DispatchErrorKind::QueueTimeout, QueuePolicy::PATIENCE));
    assert_eq!(world.lifecycle().waiting(), 0);
    drop(held);
    assert!(ask(&world, None).await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_load_that_is_under_way_is_waited_for_and_leaves_patience_for_a_slot() {
    let world = world(LifecyclePolicy::default());
    let slow = QueuePolicy::PATIENCE * 2 + SECOND;
    let engine = scripted(move |_| CommandScript::done().after(slow));
    world.registry.join(spec("r").slots(1), healthy([on_disk("m")]), engine.link());
    let began = Instant::now();
    let (first, second) = (ask(&world, None), ask(&world, None));
    let first = first.await.unwrap().unwrap();
    assert_eq!(began.elapsed(), slow);
    tokio::time::advance(5 * SECOND).await;
    assert!(!second.is_finished(), "it waits for the slot");
    drop(first);
    assert_eq!(second.await.unwrap().unwrap().waited, slow + 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn who_has_no_patience_still_has_its_model_loaded() {
    let registry = std::sync::Arc::new(gateway_core::InMemoryRegistry::new());
    let queue = QueuePolicy { patience: Duration::ZERO, ..QueuePolicy::default() };
    let dispatcher = gateway_core::Dispatcher::builder(registry.clone()).queue(queue).build();
    let world = World { registry, dispatcher };
    world.join("r", [on_disk("m")], &engine());
    let began = Instant::now();
    assert!(ask(&world, None).await.unwrap().is_ok());
    assert_eq!(began.elapsed(), LOAD);
}
