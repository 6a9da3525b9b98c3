//! Draining: of one runner, and of the whole gateway.

mod common;

use common::{fine, model, same, setup};
use gateway_core::{DispatchErrorKind, Registry, RunnerChange};
use gateway_testkit::{MockEngine, Script, request, text};

#[tokio::test(start_paused = true)]
async fn the_gateway_finishes_what_it_has_and_takes_nothing_new() {
    let (feed, script) = Script::fed();
    let script = std::sync::Mutex::new(Some(script));
    let engine = MockEngine::new(move |_| script.lock().unwrap().take().unwrap());
    let setup = setup(vec![engine], same);
    assert!(feed.send("begun, ").await);
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    setup.dispatcher.close();
    let error = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap_err();
    assert_eq!(error.kind(), DispatchErrorKind::Draining);
    let dispatcher = setup.dispatcher.clone();
    let idle = tokio::spawn(async move { dispatcher.idle().await });
    let reading = tokio::spawn(text(answer.response));
    assert!(feed.send("done").await);
    assert!(!idle.is_finished());
    drop(feed);
    assert_eq!(reading.await.unwrap().unwrap(), "begun, done");
    idle.await.unwrap();
    assert_eq!(setup.dispatcher.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_draining_runner_finishes_what_it_has_and_gets_nothing_new() {
    let setup = setup(vec![fine(), fine()], same);
    let fleet = setup.registry.fleet();
    let runner = fleet.runner("r0").unwrap();
    let held = runner.try_reserve().unwrap();
    assert!(setup.registry.update(runner.key(), RunnerChange::Drain(true)));
    assert!(runner.try_reserve().is_none());
    for _ in 0..10 {
        let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
        assert_eq!(answer.runner.id().as_str(), "r1");
        text(answer.response).await.unwrap();
    }
    let waiting = {
        let runner = runner.clone();
        tokio::spawn(async move { runner.idle().await })
    };
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(held);
    waiting.await.unwrap();
    assert!(setup.registry.update(runner.key(), RunnerChange::Drain(false)));
    assert!(runner.try_reserve().is_some());
}
