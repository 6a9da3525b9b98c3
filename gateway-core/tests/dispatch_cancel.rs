//! From every moment on, dropping stops the work and gives everything back.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{failing, fine, model, same, setup};
use gateway_core::{Cancel, Outcome, Permit};
use gateway_testkit::{Fault, MockEngine, Script, request};
use http_body_util::BodyExt;

const CANCELLED: Outcome = Outcome::Cancelled(Cancel::ByCaller);

#[tokio::test(start_paused = true)]
async fn before_the_head_and_before_the_first_byte() {
    for fault in [Fault::NoAnswer, Fault::StallAfter(0)] {
        let setup = setup(vec![failing(fault)], same);
        let dispatcher = setup.dispatcher.clone();
        let task = tokio::spawn(async move { dispatcher.dispatch(request(&model(), "{}")).await.map(drop) });
        setup.engines[0].until(|counts| counts.started == 1).await;
        assert_eq!(setup.dispatcher.in_flight(), 1);
        task.abort();
        setup.engines[0].until(|counts| counts.aborted == 1).await;
        setup.all_zero().await;
        assert_eq!(setup.recorder.count(CANCELLED), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn in_mid_answer() {
    let setup = setup(vec![failing(Fault::StallAfter(1))], same);
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    let mut body = answer.response.into_body();
    let chunk = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(chunk, "one");
    assert_eq!(answer.runner.load().in_flight, 1);
    drop(body);
    assert_eq!(answer.runner.load().in_flight, 0, "given back in the drop itself");
    assert_eq!(setup.engines[0].counts().aborted, 1);
    assert_eq!(setup.recorder.count(CANCELLED), 1);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_nobody_looks_at() {
    let setup = setup(vec![fine()], same);
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    drop(answer);
    assert_eq!(setup.recorder.count(CANCELLED), 1);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn while_another_runner_is_tried() {
    let setup = setup(vec![common::status(500, "no"), failing(Fault::NoAnswer)], same);
    let dispatcher = setup.dispatcher.clone();
    let task = tokio::spawn(async move { dispatcher.dispatch(request(&model(), "{}")).await.map(drop) });
    setup.engines[1].until(|counts| counts.started == 1).await;
    task.abort();
    setup.engines[1].until(|counts| counts.aborted == 1).await;
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_gives_back_with_its_last_chunk() {
    // Servers that know the length do not ask for what comes after the last chunk.
    let setup = setup(vec![MockEngine::new(|_| Script::text("whole"))], same);
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    let mut body = answer.response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "whole");
    assert_eq!(answer.runner.load().in_flight, 0);
    drop(body);
    assert_eq!(setup.recorder.count(Outcome::Success), 1);
    assert_eq!(setup.recorder.count(CANCELLED), 0);
    setup.all_zero().await;
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn the_permit_lives_as_long_as_the_answer() {
    let given_back = Arc::new(AtomicUsize::new(0));
    let permit =
        || Permit::holding(Counted(given_back.clone())).and(Permit::holding(Counted(given_back.clone())));
    let setup = setup(vec![fine()], same);
    let mut call = request(&model(), "{}");
    call.permit = permit();
    let answer = setup.dispatcher.dispatch(call).await.unwrap();
    assert_eq!(given_back.load(Ordering::SeqCst), 0);
    answer.response.into_body().collect().await.unwrap();
    assert_eq!(given_back.load(Ordering::SeqCst), 2);

    let mut call = request(&gateway_core::ModelId::new("unknown").unwrap(), "{}");
    call.permit = permit();
    setup.dispatcher.dispatch(call).await.unwrap_err();
    assert_eq!(given_back.load(Ordering::SeqCst), 4, "a refused request holds nothing");
}
