//! How long things may take; each limit has an effect.

mod common;

use std::time::Duration;

use common::{failing, model, setup};
use gateway_core::{BodyError, Cancel, Deadlines, DispatchErrorKind, Fault as RunnerFault, Outcome};
use gateway_testkit::{Fault, MockEngine, Script, request};
use http_body_util::BodyExt;
use tokio::time::Instant;

const NONE: Deadlines = Deadlines { first_byte: None, idle: None, total: None };
const SECOND: Duration = Duration::from_secs(1);

async fn end_of(body: gateway_core::DispatchBody) -> BodyError {
    body.collect().await.expect_err("it breaks off")
}

#[tokio::test(start_paused = true)]
async fn first_byte() {
    for fault in [Fault::NoAnswer, Fault::StallAfter(0)] {
        let deadlines = Deadlines { first_byte: Some(3 * SECOND), ..NONE };
        let setup = setup(vec![failing(fault)], |builder| builder.deadlines(deadlines));
        let start = Instant::now();
        let error = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap_err();
        assert_eq!(error.kind(), DispatchErrorKind::RunnerFailed(RunnerFault::FirstByteTimeout));
        assert!((start.elapsed() - 3 * SECOND).as_millis() < 5, "{:?}", start.elapsed());
        setup.all_zero().await;
        assert_eq!(setup.engines[0].counts().aborted, 1, "the runner stops too");
    }
}

#[tokio::test(start_paused = true)]
async fn idle_counts_from_the_last_chunk() {
    // Two chunks, four seconds apart, then nothing: the limit of five passes once, after the second.
    let engine =
        MockEngine::new(|_| Script::chunks(["a", "b", "c"]).interval(4 * SECOND).fault(Fault::StallAfter(2)));
    let setup =
        setup(vec![engine], |builder| builder.deadlines(Deadlines { idle: Some(5 * SECOND), ..NONE }));
    let start = Instant::now();
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    let error = end_of(answer.response.into_body()).await;
    assert!(error.is_idle_timeout() && !error.is_deadline(), "{error}");
    assert!((start.elapsed() - 13 * SECOND).as_millis() < 10, "{:?}", start.elapsed());
    assert_eq!(setup.recorder.count(Outcome::RunnerFault(RunnerFault::IdleTimeout)), 1);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_who_reads_slowly_is_not_held_against_the_runner() {
    let engine = MockEngine::new(|_| Script::chunks(["a", "b", "c"]).interval(SECOND));
    let setup =
        setup(vec![engine], |builder| builder.deadlines(Deadlines { idle: Some(5 * SECOND), ..NONE }));
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    let mut body = answer.response.into_body();
    for chunk in ["a", "b", "c"] {
        // The mock begins with the next chunk when it is asked for it: one honest second.
        tokio::time::advance(100 * SECOND).await;
        let frame = body.frame().await.expect("there is more").expect("nobody is at fault");
        assert_eq!(frame.into_data().unwrap(), chunk);
    }
    assert!(body.frame().await.is_none());
    assert_eq!(setup.recorder.count(Outcome::Success), 1);
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn total_covers_everything() {
    let deadlines = Deadlines { total: Some(10 * SECOND), ..NONE };
    let setup_of = |engine| setup(vec![engine], |builder| builder.deadlines(deadlines));

    let waiting = setup_of(failing(Fault::NoAnswer));
    let start = Instant::now();
    let error = waiting.dispatcher.dispatch(request(&model(), "{}")).await.unwrap_err();
    assert_eq!(error.kind(), DispatchErrorKind::Deadline);
    assert!((start.elapsed() - 10 * SECOND).as_millis() < 5);
    assert_eq!(waiting.recorder.count(Outcome::Cancelled(Cancel::Deadline)), 1);
    waiting.all_zero().await;

    // A runner that trickles for ever is cut, and is not blamed.
    let chunks = std::iter::repeat_n("x", 1000);
    let trickling = setup_of(MockEngine::new(move |_| Script::chunks(chunks.clone()).interval(SECOND)));
    let start = Instant::now();
    let answer = trickling.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    let error = end_of(answer.response.into_body()).await;
    assert!(error.is_deadline(), "{error}");
    assert!((start.elapsed() - 10 * SECOND).as_millis() < 10, "{:?}", start.elapsed());
    assert_eq!(trickling.recorder.count(Outcome::Cancelled(Cancel::Deadline)), 1);
    trickling.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn total_holds_for_an_answer_that_always_has_more() {
    let chunks = std::iter::repeat_n("x", 1000);
    let deadlines = Deadlines { total: Some(10 * SECOND), ..NONE };
    let engine = MockEngine::new(move |_| Script::chunks(chunks.clone()));
    let setup = setup(vec![engine], |builder| builder.deadlines(deadlines));
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    let mut body = answer.response.into_body();
    let error = loop {
        // A client that reads slowly: the next chunk is ready whenever it asks.
        tokio::time::advance(SECOND).await;
        if let Err(error) = body.frame().await.expect("more than ten chunks") {
            break error;
        }
    };
    assert!(error.is_deadline(), "{error}");
    setup.all_zero().await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_too_long_to_count_is_none() {
    let limit = Some(Duration::MAX);
    let deadlines = Deadlines { first_byte: limit, idle: limit, total: limit };
    let engine = MockEngine::new(|_| Script::chunks(["a", "b"]).interval(SECOND));
    let setup = setup(vec![engine], |builder| builder.deadlines(deadlines));
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    assert_eq!(gateway_testkit::text(answer.response).await.unwrap(), "ab");
}

#[tokio::test(start_paused = true)]
async fn a_first_byte_in_time_is_followed_by_idle_not_by_total_silence() {
    let engine = MockEngine::new(|_| Script::chunks(["a", "b"]).interval(2 * SECOND));
    let deadlines =
        Deadlines { first_byte: Some(3 * SECOND), idle: Some(3 * SECOND), total: Some(7 * SECOND) };
    let setup = setup(vec![engine], |builder| builder.deadlines(deadlines));
    let answer = setup.dispatcher.dispatch(request(&model(), "{}")).await.unwrap();
    assert_eq!(gateway_testkit::text(answer.response).await.unwrap(), "ab");
    setup.all_zero().await;
}
