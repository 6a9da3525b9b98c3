//! Models that nobody has asked for in a while are unloaded, if that is wanted.

mod lifecycle_support;

use std::time::Duration;

use gateway_core::{
    CancellationToken, Command, IdleUnload, LifecyclePolicy, ModelState, Registry, RunnerChange,
};
use gateway_testkit::CommandScript;
use lifecycle_support::*;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const KEEP: Duration = Duration::from_secs(300);
const MS: Duration = Duration::from_millis(1);

fn keeping(unload: IdleUnload) -> LifecyclePolicy {
    LifecyclePolicy { keep_alive: Some(KEEP), idle_unload: unload, ..LifecyclePolicy::default() }
}

/// Runs the part that unloads.
fn tended(world: &World) -> (JoinHandle<()>, CancellationToken) {
    let (lifecycle, stop) = (world.lifecycle().clone(), CancellationToken::new());
    let token = stop.clone();
    (tokio::spawn(async move { lifecycle.tend(&token).await }), stop)
}

#[tokio::test(start_paused = true)]
async fn idle_models_go_when_their_time_is_up_and_come_back_when_asked_for() {
    let (world, engine) = (world(keeping(IdleUnload::LoadedHere)), engine());
    world.join("r", [on_disk("m")], &engine);
    let (task, stop) = tended(&world);
    world.ask("m").await.unwrap();
    sleep(KEEP / 2).await;
    world.ask("m").await.unwrap();
    sleep(KEEP - MS).await;
    assert_eq!(world.state("r", "m"), ModelState::Loaded);
    sleep(MS * 10).await;
    assert_eq!(engine.commands(), [load("m"), unload("m")]);
    assert_eq!(world.state("r", "m"), ModelState::Available);
    assert_eq!(world.ask("m").await.unwrap(), "r");
    assert_eq!(engine.commands().len(), 3);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn time_does_not_run_while_a_model_is_used() {
    let (world, engine) = (world(keeping(IdleUnload::All)), engine());
    world.join("r", [loaded("m")], &engine);
    let _tended = tended(&world);
    let held = world.hold("r", "m");
    sleep(KEEP * 3).await;
    assert!(engine.commands().is_empty());
    let freed = Instant::now();
    held.used(freed);
    drop(held);
    told(&engine, 1).await;
    let late = freed.elapsed() - KEEP;
    assert!(late <= Duration::from_secs(1), "{late:?} too late");
}

#[tokio::test(start_paused = true)]
async fn what_others_have_loaded_is_theirs_unless_told_otherwise() {
    for (unload, left) in
        [(IdleUnload::LoadedHere, ModelState::Loaded), (IdleUnload::All, ModelState::Available)]
    {
        let (world, engine) = (world(keeping(unload)), engine());
        world.join("r", [loaded("m")], &engine);
        let _tended = tended(&world);
        sleep(KEEP * 3).await;
        assert_eq!(world.state("r", "m"), left);
    }
}

#[tokio::test(start_paused = true)]
async fn models_have_times_of_their_own() {
    let policy = keeping(IdleUnload::All)
        .keep_alive_of(model("short"), Some(KEEP / 10))
        .keep_alive_of(model("ever"), None)
        .pin(model("pinned"));
    let (world, engine) = (world(policy), engine());
    world.join("r", ["plain", "short", "ever", "pinned"].map(loaded), &engine);
    let _tended = tended(&world);
    sleep(KEEP / 2).await;
    assert_eq!(engine.commands(), [unload("short")]);
    sleep(KEEP * 10).await;
    assert_eq!(engine.commands(), [unload("short"), unload("plain")]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_unloaded_unless_it_is_wanted() {
    for policy in [LifecyclePolicy::default(), LifecyclePolicy { enabled: false, ..keeping(IdleUnload::All) }]
    {
        let (world, engine) = (world(policy), engine());
        world.join("r", [loaded("m")], &engine);
        let (task, stop) = tended(&world);
        sleep(KEEP * 10).await;
        assert!(engine.commands().is_empty() && !task.is_finished());
        stop.cancel();
        task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_is_slow_to_unload_holds_up_no_other() {
    let world = world(keeping(IdleUnload::All));
    let (stuck, quick) = (scripted(|_| CommandScript::never()), engine());
    world.join("a", [loaded("m")], &stuck);
    sleep(MS).await;
    world.join("b", [loaded("m"), loaded("n")], &quick);
    let _tended = tended(&world);
    sleep(KEEP + Duration::from_secs(3)).await;
    assert_eq!(world.state("a", "m"), ModelState::Unloading);
    assert_eq!(quick.commands(), [unload("m"), unload("n")], "one after the other");
    assert_eq!(world.state("b", "n"), ModelState::Available);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_refuses_is_not_asked_all_the_time() {
    let world = world(keeping(IdleUnload::All));
    let engine = scripted(|_| CommandScript::refused("busy"));
    world.join("r", [loaded("m")], &engine);
    let _tended = tended(&world);
    sleep(KEEP + Duration::from_secs(5)).await;
    assert_eq!(engine.commands().len(), 1);
    assert_eq!(world.state("r", "m"), ModelState::Loaded);
    sleep(LifecyclePolicy::SHORTEST_PAUSE).await;
    assert_eq!(engine.commands().len(), 2);
    let unable = scripted(|_| CommandScript::unsupported());
    world.join("s", [loaded("m")], &unable);
    sleep(KEEP * 10).await;
    assert_eq!(unable.commands().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn stopping_is_at_once_and_what_was_begun_is_unsure() {
    let world = world(keeping(IdleUnload::All));
    let engine = scripted(|command| match command {
        Command::UnloadModel(_) => CommandScript::never(),
        _ => CommandScript::done(),
    });
    let key = world.join("r", [loaded("m")], &engine);
    let (task, stop) = tended(&world);
    told(&engine, 1).await;
    stop.cancel();
    task.await.unwrap();
    assert_eq!(engine.command_counts().given_up, 1);
    assert_eq!(world.state("r", "m"), ModelState::Unloading);
    world.say(&key, healthy([loaded("m")]));
    assert_eq!(world.ask("m").await.unwrap(), "r");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_while_it_goes_waits_and_has_it_loaded_again() {
    let world = world(keeping(IdleUnload::All));
    let engine = scripted(|_| CommandScript::done().after(LOAD));
    world.join("r", [loaded("m")], &engine);
    let _tended = tended(&world);
    told(&engine, 1).await;
    let (begun, request) = (Instant::now(), world.asks("m"));
    assert_eq!(request.await.unwrap().unwrap(), "r");
    assert_eq!(engine.commands(), [unload("m"), load("m")]);
    assert!(begun.elapsed() <= LOAD * 2);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_drains_is_left_alone() {
    let (world, engine) = (world(keeping(IdleUnload::All)), engine());
    let key = world.join("r", [loaded("m")], &engine);
    world.registry.update(&key, RunnerChange::Drain(true));
    let _tended = tended(&world);
    sleep(KEEP * 3).await;
    assert!(engine.commands().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_longest_time_there_is_is_no_time_to_go() {
    let for_ever = LifecyclePolicy { keep_alive: Some(Duration::MAX), ..keeping(IdleUnload::All) };
    let (world, engine) = (world(for_ever), engine());
    world.join("r", [loaded("m"), on_disk("x")], &engine);
    let (task, stop) = tended(&world);
    world.ask("x").await.unwrap();
    sleep(Duration::from_secs(86_400)).await;
    assert_eq!(engine.commands(), [load("x")]);
    stop.cancel();
    task.await.unwrap();
}
