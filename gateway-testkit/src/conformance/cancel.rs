//! Who goes away stops the work, from every moment on.

use bytes::Bytes;

use super::{CANCEL_BOUND, PATIENCE, Subject, next, post, take, until};
use crate::engine::MockEngine;
use crate::script::{Fault, Script};

pub(super) async fn before_the_head(subject: &dyn Subject) {
    let engine = MockEngine::new(|_| Script::text("").fault(Fault::NoAnswer));
    let connected = subject.connect(engine.clone()).await;
    for number in 1..=3 {
        let link = connected.link.clone();
        let sending = tokio::spawn(async move { link.send(post("/x", "{}")).await.map(drop) });
        until(&engine, PATIENCE, "the request arrives", |counts| counts.started == number).await;
        sending.abort();
        until(&engine, CANCEL_BOUND, "the engine sees the abort", |counts| counts.aborted == number).await;
    }
}

pub(super) async fn before_the_first_byte(subject: &dyn Subject) {
    let engine = MockEngine::new(|_| Script::chunks(["never"]).fault(Fault::StallAfter(0)));
    let connected = subject.connect(engine.clone()).await;
    let response = connected.link.send(post("/x", "{}")).await.expect("the head comes by itself");
    drop(response);
    until(&engine, CANCEL_BOUND, "the engine sees the abort", |counts| counts.aborted == 1).await;
}

pub(super) async fn in_mid_answer(subject: &dyn Subject) {
    // One that stands still, and one that is busy sending when its reader goes.
    let engine = MockEngine::new(|seen| match seen.head.uri.path() {
        "/still" => Script::chunks(["first", "never"]).fault(Fault::StallAfter(1)),
        _ => Script::chunks(std::iter::repeat_n(Bytes::from_static(&[b'x'; 8192]), 1_000_000)),
    });
    let connected = subject.connect(engine.clone()).await;
    let mut body = connected.link.send(post("/still", "{}")).await.expect("answer").into_body();
    assert_eq!(take(&mut body, 5).await, b"first");
    drop(body);
    until(&engine, CANCEL_BOUND, "the engine sees the abort", |counts| counts.aborted == 1).await;
    let mut body = connected.link.send(post("/busy", "{}")).await.expect("answer").into_body();
    assert!(next(&mut body).await.is_some());
    drop(body);
    until(&engine, CANCEL_BOUND * 2, "the busy engine sees the abort", |counts| counts.aborted == 2).await;
}

pub(super) async fn one_and_no_other(subject: &dyn Subject) {
    let (feed, script) = Script::fed();
    let script = std::sync::Mutex::new(Some(script));
    let engine = MockEngine::new(move |_| {
        let mut fed = script.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        fed.take().unwrap_or_else(|| Script::text("").fault(Fault::NoAnswer))
    });
    let connected = subject.connect(engine.clone()).await;
    assert!(feed.send("a").await);
    let mut kept = connected.link.send(post("/x", "{}")).await.expect("answer").into_body();
    assert_eq!(take(&mut kept, 1).await, b"a");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let link = connected.link.clone();
        tasks.spawn(async move { link.send(post("/x", "{}")).await.map(drop) });
    }
    until(&engine, PATIENCE, "all arrive", |counts| counts.started == 21).await;
    tasks.abort_all();
    until(&engine, CANCEL_BOUND * 2, "all abort", |counts| counts.aborted == 20).await;
    assert!(feed.send("b").await);
    assert_eq!(take(&mut kept, 1).await, b"b");
}
