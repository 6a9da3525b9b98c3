//! Faults are told as what they are.

use gateway_core::{LinkError, RunnerLink};

use super::flow::fed_body;
use super::{PATIENCE, Subject, next, post, read_all, take, until};
use crate::engine::MockEngine;
use crate::script::{Fault, Script};

/// Sends to an engine that fails like this and returns what is told, from `send` or from the body.
async fn failure(link: &dyn RunnerLink) -> LinkError {
    match link.send(post("/x", "{}")).await {
        Err(error) => error,
        Ok(response) => read_all(response.into_body()).await.expect_err("a cut answer is no whole answer"),
    }
}

pub(super) async fn cut_before_head(subject: &dyn Subject) {
    let engine = MockEngine::new(|_| Script::text("").fault(Fault::CutBeforeHead));
    let connected = subject.connect(engine).await;
    let error = failure(&*connected.link).await;
    assert!(!error.is_not_sent(), "the engine had the request: {error}");
    assert!(!error.is_request_body(), "{error}");
}

pub(super) async fn cut_before_first_byte(subject: &dyn Subject) {
    let engine = MockEngine::new(|_| Script::chunks(["x"]).fault(Fault::CutBeforeFirstByte));
    let connected = subject.connect(engine).await;
    let error = failure(&*connected.link).await;
    assert!(!error.is_not_sent(), "the engine had the request: {error}");
}

pub(super) async fn cut_in_mid_answer(subject: &dyn Subject) {
    let engine = MockEngine::new(|_| Script::chunks(["one", "two", "no"]).fault(Fault::CutAfter(2)));
    let connected = subject.connect(engine).await;
    let mut body = connected.link.send(post("/x", "{}")).await.expect("answer").into_body();
    assert_eq!(take(&mut body, 6).await, b"onetwo", "what came before the cut is passed on");
    let end = next(&mut body).await.expect("a cut is not an end");
    assert!(end.is_err());
}

pub(super) async fn failing_request_body(subject: &dyn Subject) {
    let engine = MockEngine::new(|_| Script::text("no"));
    let connected = subject.connect(engine.clone()).await;
    let (feed, body) = fed_body();
    let link = connected.link.clone();
    let sending = tokio::spawn(async move { link.send(post("/x", body)).await.map(drop) });
    feed.send(Ok("some".into())).await.expect("the body is read");
    until(&engine, PATIENCE, "the beginning arrives", |counts| counts.body_bytes >= 4).await;
    feed.send(Err("the client is gone".into())).await.expect("the body is read");
    let error = sending.await.expect("no panic").expect_err("half a request has no answer");
    assert!(error.is_request_body(), "the runner is not to blame: {error}");
    until(&engine, PATIENCE, "the engine gives up", |counts| counts.active() == 0).await;
}

pub(super) async fn works_on_after_faults(subject: &dyn Subject) {
    let engine = MockEngine::new(|seen| match seen.head.uri.path() {
        "/head" => Script::text("").fault(Fault::CutBeforeHead),
        "/mid" => Script::chunks(["x", "y"]).fault(Fault::CutAfter(1)),
        _ => Script::text("fine"),
    });
    let connected = subject.connect(engine.clone()).await;
    for _ in 0..5 {
        for path in ["/head", "/mid"] {
            if let Ok(response) = connected.link.send(post(path, "{}")).await {
                assert!(read_all(response.into_body()).await.is_err());
            }
        }
        let response = connected.link.send(post("/fine", "{}")).await.expect("works on");
        assert_eq!(read_all(response.into_body()).await.expect("body"), b"fine");
    }
    until(&engine, PATIENCE, "nothing is left", |counts| counts.active() == 0).await;
}

pub(super) async fn close_ends_everything(subject: &dyn Subject) {
    if !subject.has_connections() {
        return;
    }
    let engine = MockEngine::new(|seen| match seen.head.uri.path() {
        "/mid" => Script::chunks(["x", "never"]).fault(Fault::StallAfter(1)),
        _ => Script::text("").fault(Fault::NoAnswer),
    });
    let connected = subject.connect(engine.clone()).await;
    let mut body = connected.link.send(post("/mid", "{}")).await.expect("answer").into_body();
    assert_eq!(take(&mut body, 1).await, b"x");
    let link = connected.link.clone();
    let waiting = tokio::spawn(async move { link.send(post("/wait", "{}")).await.map(drop) });
    until(&engine, PATIENCE, "both arrive", |counts| counts.started == 2).await;
    connected.link.close();
    assert!(next(&mut body).await.expect("a cut is not an end").is_err());
    let waited = tokio::time::timeout(PATIENCE, waiting).await.expect("nobody hangs").expect("no panic");
    assert!(waited.is_err());
    until(&engine, PATIENCE, "the engine sees both abort", |counts| counts.aborted == 2).await;
    let later = connected.link.send(post("/x", "{}")).await.map(drop).expect_err("closed is closed");
    assert!(later.is_not_sent(), "nothing can have reached the runner: {later}");
}
