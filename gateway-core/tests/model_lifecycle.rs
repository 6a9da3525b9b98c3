//! A request for a model on disk has it loaded: once for all who wait, as long as somebody waits.

mod lifecycle_support;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gateway_core::{
    DispatchErrorKind, LeaveReason, LifecyclePolicy, Model, ModelState, Registry, RunnerChange,
};
use gateway_testkit::{CommandScript, Fault, MockEngine, Script};
use lifecycle_support::*;
use tokio::time::Instant;

fn is_loading(state: &ModelState) -> bool {
    matches!(state, ModelState::Loading { .. })
}

#[tokio::test(start_paused = true)]
async fn fifty_first_requests_are_one_load_and_fifty_answers() {
    let (world, engine) = (world(LifecyclePolicy::default()), engine());
    world.join("r", [on_disk("m")], &engine);
    let requests: Vec<_> = (0..50).map(|_| world.asks("m")).collect();
    told(&engine, 1).await;
    assert!(is_loading(&world.state("r", "m")));
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap(), "r");
    }
    assert_eq!(engine.commands(), [load("m")]);
    assert_eq!(engine.counts().finished, 50);
    assert_eq!(world.state("r", "m"), ModelState::Loaded);
    assert_eq!(world.ask("m").await.unwrap(), "r");
    assert_eq!(engine.commands().len(), 1, "it is loaded now");
    gateway_testkit::assert_all_zero(&world.dispatcher, [&engine]).await;
}

#[tokio::test(start_paused = true)]
async fn who_leaves_early_does_not_stop_the_load_for_the_others() {
    let (world, engine) = (world(LifecyclePolicy::default()), engine());
    world.join("r", [on_disk("m")], &engine);
    let mut requests: Vec<_> = (0..50).map(|_| world.asks("m")).collect();
    told(&engine, 1).await;
    let last = requests.pop().unwrap();
    // Those who came first, and who have driven the load so far, leave first.
    for request in requests {
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
    }
    assert_eq!(engine.command_counts().given_up, 0);
    assert!(is_loading(&world.state("r", "m")));
    assert_eq!(last.await.unwrap().unwrap(), "r");
    assert_eq!(engine.commands(), [load("m")]);
    assert_eq!(engine.counts().started, 1);
}

#[tokio::test(start_paused = true)]
async fn the_load_is_given_up_when_the_last_one_leaves_and_begun_anew_for_the_next() {
    let (world, engine) = (world(LifecyclePolicy::default()), engine());
    world.join("r", [on_disk("m")], &engine);
    let requests: Vec<_> = (0..50).map(|_| world.asks("m")).collect();
    told(&engine, 1).await;
    for request in requests {
        assert_eq!(engine.command_counts().given_up, 0, "somebody still waits");
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
    }
    assert_eq!(engine.command_counts().given_up, 1, "at once");
    assert_eq!(world.state("r", "m"), ModelState::Available);
    assert_eq!(world.ask("m").await.unwrap(), "r");
    assert_eq!(engine.commands(), [load("m"), load("m")]);
    gateway_testkit::assert_all_zero(&world.dispatcher, [&engine]).await;
}

#[tokio::test(start_paused = true)]
async fn who_has_it_loaded_or_loads_it_by_itself_is_preferred() {
    let (disk, other) = (engine(), engine());
    for state in [ModelState::Loaded, ModelState::OnDemand] {
        let world = world(LifecyclePolicy::default());
        world.join("a", [on_disk("m")], &disk);
        world.join("b", [Model::new(model("m"), state)], &other);
        for _ in 0..10 {
            assert_eq!(world.ask("m").await.unwrap(), "b");
        }
    }
    assert!(disk.commands().is_empty() && other.commands().is_empty());
}

#[tokio::test(start_paused = true)]
async fn progress_is_visible_and_old_reports_do_not_undo_it() {
    let (world, engine) = (world(LifecyclePolicy::default()), engine());
    let key = world.join("r", [on_disk("m")], &engine);
    let request = world.asks("m");
    told(&engine, 1).await;
    assert_eq!(world.state("r", "m"), ModelState::Loading { progress: None });
    let progress = ModelState::Loading { progress: Some(0.4) };
    world.say(&key, healthy([Model::new(model("m"), progress.clone())]));
    assert_eq!(world.state("r", "m"), progress);
    world.say(&key, healthy([on_disk("m")]));
    assert_eq!(world.state("r", "m"), ModelState::Loading { progress: None }, "a heartbeat from before");
    assert_eq!(request.await.unwrap().unwrap(), "r");
    assert_eq!(world.state("r", "m"), ModelState::Loaded);
    assert_eq!(engine.commands(), [load("m")]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_served_as_soon_as_the_runner_says_that_it_is_loaded() {
    let world = world(LifecyclePolicy::default());
    let engine = scripted(|_| CommandScript::never());
    let key = world.join("r", [on_disk("m")], &engine);
    let requests: Vec<_> = (0..5).map(|_| world.asks("m")).collect();
    told(&engine, 1).await;
    world.say(&key, healthy([loaded("m")]));
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap(), "r");
    }
    assert_eq!(world.state("r", "m"), ModelState::Loaded);
}

#[tokio::test(start_paused = true)]
async fn the_status_in_the_reply_counts() {
    let world = world(LifecyclePolicy::default());
    let after = healthy([loaded("m"), on_disk("new")]);
    let reply = CommandScript::done().with_status(after).after(LOAD);
    let engine = scripted(move |_| reply.clone());
    world.join("r", [on_disk("m")], &engine);
    assert_eq!(world.ask("m").await.unwrap(), "r");
    assert_eq!(world.state("r", "m"), ModelState::Loaded);
    assert_eq!(world.state("r", "new"), ModelState::Available);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_fails_is_followed_by_another() {
    let world = world(LifecyclePolicy::default());
    let (bad, good) = (scripted(|_| CommandScript::refused("out of memory")), engine());
    // With one model more in memory the good one is the second choice.
    world.join("bad", [on_disk("m")], &bad);
    world.join("good", [on_disk("m"), loaded("other")], &good);
    let requests: Vec<_> = (0..20).map(|_| world.asks("m")).collect();
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap(), "good");
    }
    assert_eq!((bad.commands(), good.commands()), (vec![load("m")], vec![load("m")]));
    let ModelState::Failed { message: Some(words) } = world.state("bad", "m") else {
        panic!("{:?}", world.state("bad", "m"))
    };
    assert!(words.contains("out of memory"), "{words}");
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_failed_is_spared_for_a_while_and_then_tried_again() {
    let world = world(LifecyclePolicy::default());
    let well = Arc::new(AtomicBool::new(false));
    let is_well = well.clone();
    let engine = scripted(move |_| match is_well.load(Ordering::Relaxed) {
        true => CommandScript::done(),
        false => CommandScript::refused("not today"),
    });
    let key = world.join("r", [on_disk("m")], &engine);
    for expected in [DispatchErrorKind::ModelNotLoaded, DispatchErrorKind::NoneEligible] {
        let error = world.ask("m").await.unwrap_err();
        assert_eq!(error.kind(), expected);
        assert!(error.retry_after().is_some_and(|wait| wait <= LifecyclePolicy::SHORTEST_PAUSE * 2));
        assert_eq!(engine.commands().len(), 1, "not again so soon");
    }
    world.say(&key, healthy([on_disk("m")]));
    assert!(matches!(world.state("r", "m"), ModelState::Failed { .. }), "it is still what happened last");
    let pause = world.lifecycle().retry_after(&model("m")).unwrap();
    let range = LifecyclePolicy::SHORTEST_PAUSE.mul_f64(0.8)..=LifecyclePolicy::SHORTEST_PAUSE;
    assert!(range.contains(&pause), "{pause:?}");
    tokio::time::advance(pause).await;
    world.ask("m").await.unwrap_err();
    assert_eq!(engine.commands().len(), 2);
    let longer = world.lifecycle().retry_after(&model("m")).unwrap();
    assert!(longer > pause, "{longer:?} after {pause:?}");
    well.store(true, Ordering::Relaxed);
    tokio::time::advance(longer).await;
    assert_eq!(world.ask("m").await.unwrap(), "r");
    assert_eq!(world.state("r", "m"), ModelState::Loaded);
    assert_eq!(world.lifecycle().retry_after(&model("m")), None);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_fails_everywhere_does_not_go_through_the_whole_fleet() {
    for most in [1, 3] {
        let world = world(LifecyclePolicy { max_failed: most, ..LifecyclePolicy::default() });
        let engine = scripted(|_| CommandScript::refused("bad file"));
        for number in 0..8 {
            world.join(&format!("r{number}"), [on_disk("m")], &engine);
        }
        let requests: Vec<_> = (0..10).map(|_| world.asks("m")).collect();
        for request in requests {
            request.await.unwrap().unwrap_err();
        }
        assert_eq!(engine.commands().len(), most as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_takes_no_such_command_is_not_asked_again() {
    let world = world(LifecyclePolicy::default());
    let (fixed, able) = (scripted(|_| CommandScript::unsupported()), engine());
    world.join("fixed", [on_disk("m"), on_disk("n")], &fixed);
    world.join("able", [on_disk("m"), on_disk("n"), loaded("other")], &able);
    assert_eq!(world.ask("m").await.unwrap(), "able");
    assert_eq!(world.ask("n").await.unwrap(), "able");
    assert_eq!(fixed.commands(), [load("m")]);
    assert_eq!(world.state("fixed", "m"), ModelState::Available, "nothing has failed there");
}

#[tokio::test(start_paused = true)]
async fn a_load_that_takes_too_long_has_failed() {
    let limit = Duration::from_secs(90);
    let world = world(LifecyclePolicy { load_timeout: limit, ..LifecyclePolicy::default() });
    let (stuck, able) = (scripted(|_| CommandScript::never()), engine());
    world.join("stuck", [on_disk("m")], &stuck);
    world.join("able", [on_disk("m"), loaded("other")], &able);
    let begun = tokio::time::Instant::now();
    assert_eq!(world.ask("m").await.unwrap(), "able");
    assert_eq!(begun.elapsed(), limit + LOAD);
    assert_eq!(stuck.command_counts().given_up, 1);
    assert!(matches!(world.state("stuck", "m"), ModelState::Failed { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_says_done_and_has_it_not_has_failed() {
    let world = world(LifecyclePolicy::default());
    let reply = CommandScript::done().with_status(healthy([on_disk("m")]));
    let (liar, able) = (scripted(move |_| reply.clone()), engine());
    world.join("liar", [on_disk("m")], &liar);
    world.join("able", [on_disk("m"), loaded("other")], &able);
    assert_eq!(world.ask("m").await.unwrap(), "able");
    assert_eq!(liar.commands().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_leaves_while_it_loads_is_followed_by_another() {
    let world = world(LifecyclePolicy::default());
    let (leaver, able) = (scripted(|_| CommandScript::never()), engine());
    let key = world.join("leaver", [on_disk("m")], &leaver);
    world.join("able", [on_disk("m"), loaded("other")], &able);
    let request = world.asks("m");
    told(&leaver, 1).await;
    world.registry.leave(&key, LeaveReason::Disconnected);
    assert_eq!(request.await.unwrap().unwrap(), "able");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_is_loading_is_waited_for() {
    let limit = Duration::from_secs(90);
    let world = world(LifecyclePolicy { load_timeout: limit, ..LifecyclePolicy::default() });
    let (theirs, ours) = (engine(), engine());
    let loading = || healthy([Model::new(model("m"), ModelState::Loading { progress: None })]);
    let key = world.registry.join(spec("theirs"), loading(), theirs.link());
    world.join("ours", [on_disk("m")], &ours);
    let request = world.asks("m");
    tokio::task::yield_now().await;
    world.say(&key, healthy([loaded("m")]));
    assert_eq!(request.await.unwrap().unwrap(), "theirs");
    assert!(theirs.commands().is_empty() && ours.commands().is_empty());
    // But not for ever.
    world.say(&key, loading());
    let begun = tokio::time::Instant::now();
    assert_eq!(world.ask("m").await.unwrap(), "ours");
    assert!(begun.elapsed() >= limit && begun.elapsed() < limit + LOAD + Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_load_that_would_not_help_is_not_waited_for() {
    let world = world(LifecyclePolicy::default());
    let engines = [engine(), engine()];
    for (zone, engine) in ["eu", "us"].iter().zip(&engines) {
        world.registry.join(spec(zone).label("zone", *zone), healthy([on_disk("m")]), engine.link());
    }
    let in_zone = |zone: &str| {
        let mut wants = wants("m");
        wants.labels.insert("zone".into(), zone.into());
        wants
    };
    let mut eu = world.lifecycle().ensure(&in_zone("eu"), &[]).unwrap();
    let mut us = world.lifecycle().ensure(&in_zone("us"), &[]).unwrap();
    let mut any = world.lifecycle().ensure(&wants("m"), &[]).unwrap();
    assert!(world.lifecycle().ensure(&in_zone("mars"), &[]).is_none());
    let (eu, us, any) = tokio::join!(eu.wait(), us.wait(), any.wait());
    assert!(eu.is_ok() && us.is_ok() && any.is_ok());
    for engine in &engines {
        assert_eq!(engine.commands(), [load("m")]);
    }
}

#[tokio::test(start_paused = true)]
async fn who_drains_or_is_not_well_is_not_told_to_load() {
    let (world, engine) = (world(LifecyclePolicy::default()), engine());
    let key = world.join("r", [on_disk("m")], &engine);
    world.registry.update(&key, RunnerChange::Drain(true));
    assert!(world.lifecycle().ensure(&wants("m"), &[]).is_none());
    world.registry.update(&key, RunnerChange::Drain(false));
    assert!(world.lifecycle().ensure(&wants("m"), &[]).is_some());
    let mut ill = healthy([on_disk("m")]);
    ill.health = gateway_core::Health::Unhealthy;
    world.say(&key, ill);
    assert!(world.lifecycle().ensure(&wants("m"), &[]).is_none());
    assert!(engine.commands().is_empty(), "nobody has waited");
}

#[tokio::test(start_paused = true)]
async fn who_waits_says_how_long_and_is_told_how_long_it_was() {
    let (world, engine) = (world(LifecyclePolicy::default()), engine());
    world.join("r", [on_disk("m")], &engine);
    let mut hasty = gateway_testkit::request(&model("m"), "{}");
    hasty.claim.patience = Some(LOAD / 4);
    let begun = tokio::time::Instant::now();
    let error = world.dispatcher.dispatch(hasty).await.unwrap_err();
    assert_eq!((error.kind(), begun.elapsed()), (DispatchErrorKind::QueueTimeout, LOAD / 4));
    assert_eq!(engine.command_counts().given_up, 1, "nobody else waited");
    let answer = world.dispatcher.dispatch(gateway_testkit::request(&model("m"), "{}")).await.unwrap();
    assert_eq!(answer.waited, LOAD);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_wait() {
    let world = world(LifecyclePolicy { max_waiting: 3, ..LifecyclePolicy::default() });
    let engine = engine();
    world.join("r", [on_disk("m")], &engine);
    let requests: Vec<_> = (0..3).map(|_| world.asks("m")).collect();
    told(&engine, 1).await;
    assert_eq!(world.lifecycle().waiting(), 3);
    assert_eq!(world.ask("m").await.unwrap_err().kind(), DispatchErrorKind::QueueFull);
    for request in requests {
        request.await.unwrap().unwrap();
    }
    assert_eq!(world.lifecycle().waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn it_can_be_switched_off() {
    let (world, engine) = (world(LifecyclePolicy::off()), engine());
    world.join("r", [on_disk("m")], &engine);
    let error = world.ask("m").await.unwrap_err();
    assert_eq!(error.kind(), DispatchErrorKind::NoneEligible);
    assert!(engine.commands().is_empty());
}

/// Requests come on many threads while loads end: never is a model loaded that is loaded or being loaded.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_load_on_many_threads() {
    for _ in 0..300 {
        let world = world(LifecyclePolicy::default());
        let engine = scripted(|_| CommandScript::done());
        for id in ["a", "b", "c"] {
            world.join(id, [on_disk("m")], &engine);
        }
        let requests: Vec<_> = (0..16).map(|_| world.asks("m")).collect();
        for request in requests {
            request.await.unwrap().unwrap();
        }
        assert_eq!(engine.commands(), [load("m")]);
        gateway_testkit::assert_all_zero(&world.dispatcher, [&engine]).await;
    }
}

/// The same with everybody leaving at any moment: whatever was begun ends, and nothing stays busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_left_behind_by_those_who_leave() {
    for round in 0..200 {
        let world = world(LifecyclePolicy::default());
        let engine = scripted(|_| CommandScript::done().after(Duration::from_micros(300)));
        world.join("r", [on_disk("m")], &engine);
        let requests: Vec<_> = (0..8).map(|_| world.asks("m")).collect();
        for (number, request) in requests.into_iter().enumerate() {
            if number % 2 == round % 2 {
                tokio::task::yield_now().await;
            }
            request.abort();
            let _ = request.await;
        }
        let counts = engine.until_commands(|counts| counts.started == counts.ended + counts.given_up).await;
        if counts.ended == 0 {
            assert_eq!(world.state("r", "m"), ModelState::Available);
        }
        assert_eq!(world.ask("m").await.unwrap(), "r");
        gateway_testkit::assert_all_zero(&world.dispatcher, [&engine]).await;
    }
}

/// An engine that cuts every answer off while it is broken.
fn breakable() -> (MockEngine, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    let engine = MockEngine::new(move |_| match is_broken.load(Ordering::SeqCst) {
        true => Script::text("").fault(Fault::CutBeforeHead),
        false => Script::text("fine"),
    });
    (engine, broken)
}

/// One runner has the model loaded and fails until its breaker opens; another has it on disk and other things
/// in memory.
async fn one_that_fails_and_one_that_could_load() -> (World, MockEngine, Arc<AtomicBool>) {
    let world = world(LifecyclePolicy { max_loaded: NonZeroU32::new(1), ..LifecyclePolicy::default() });
    let ((bad, broken), other) = (breakable(), engine());
    world.join("bad", [loaded("m")], &bad);
    world.join("other", [loaded("a"), on_disk("m")], &other);
    for _ in 0..5 {
        let kind = world.ask("m").await.unwrap_err().kind();
        assert!(matches!(kind, DispatchErrorKind::RunnerFailed(_)), "{kind:?}");
    }
    assert!(other.commands().is_empty(), "whatever fails must not have its model loaded everywhere");
    (world, other, broken)
}

#[tokio::test(start_paused = true)]
async fn nothing_is_loaded_or_evicted_for_a_fault_that_passes() {
    let (world, other, broken) = one_that_fails_and_one_that_could_load().await;
    broken.store(false, Ordering::SeqCst);
    let began = Instant::now();
    assert_eq!(world.ask("m").await.unwrap(), "bad");
    assert!(began.elapsed() > Duration::ZERO, "its breaker was open");
    assert!(other.commands().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_goes_on_failing_is_followed_by_another() {
    let (world, other, _broken) = one_that_fails_and_one_that_could_load().await;
    // The probe fails too.
    world.ask("m").await.unwrap_err();
    assert!(other.commands().is_empty());
    assert_eq!(world.ask("m").await.unwrap(), "other");
    assert_eq!(other.commands(), [unload("a"), load("m")]);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_reached_or_drains_is_followed_by_another() {
    for drains in [false, true] {
        let (world, other) = (world(LifecyclePolicy::default()), engine());
        let gone = MockEngine::new(|_| Script::text("").fault(Fault::Unreachable));
        let key = world.join("gone", [loaded("m")], &gone);
        world.join("other", [on_disk("m")], &other);
        if drains {
            world.registry.update(&key, RunnerChange::Drain(true));
        }
        assert_eq!(world.ask("m").await.unwrap(), "other", "{drains}");
    }
}
