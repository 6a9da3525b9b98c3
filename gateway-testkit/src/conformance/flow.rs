//! Chunks pass as they come, and nobody waits for a stranger.

use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::Bytes;
use gateway_core::{BoxError, RequestBody};
use http_body::{Body, Frame};
use tokio::sync::mpsc;

use super::{PATIENCE, Subject, next, post, read_all, take, until};
use crate::engine::MockEngine;
use crate::script::{ChunkSender, Script};

/// An engine whose next answers are fed by the returned senders, in order.
fn fed(count: usize) -> (Vec<ChunkSender>, MockEngine) {
    let (senders, scripts): (Vec<_>, Vec<_>) = (0..count).map(|_| Script::fed()).unzip();
    let scripts = Mutex::new(scripts.into_iter());
    let next = move |_: &_| {
        let mut scripts = scripts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        scripts.next().unwrap_or_else(|| Script::text("other"))
    };
    (senders, MockEngine::new(next))
}

pub(super) async fn chunks_as_they_come(subject: &dyn Subject) {
    let (mut feeds, engine) = fed(1);
    let connected = subject.connect(engine).await;
    let feed = feeds.remove(0);
    // The first chunk may be needed for the head to be sent.
    assert!(feed.send("chunk 0").await);
    let mut body = connected.link.send(post("/x", "{}")).await.expect("answer").into_body();
    assert_eq!(take(&mut body, 7).await, b"chunk 0");
    for number in 1..20 {
        let chunk = format!("chunk {number}");
        assert!(feed.send(chunk.clone()).await);
        // Nothing more is coming until this one is here: a link that gathers hangs.
        assert_eq!(take(&mut body, chunk.len()).await, chunk.as_bytes());
    }
    drop(feed);
    assert!(next(&mut body).await.is_none());
}

struct Fed(mpsc::Receiver<Result<Bytes, BoxError>>);

impl Body for Fed {
    type Data = Bytes;
    type Error = BoxError;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}

/// A request body that is fed by the returned sender.
pub(super) fn fed_body() -> (mpsc::Sender<Result<Bytes, BoxError>>, RequestBody) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, RequestBody::stream(Fed(receiver)))
}

pub(super) async fn request_as_it_comes(subject: &dyn Subject) {
    let engine = MockEngine::new(|seen| Script::text(seen.body.clone()));
    let connected = subject.connect(engine.clone()).await;
    let (feed, body) = fed_body();
    let link = connected.link.clone();
    let sending = tokio::spawn(async move { link.send(post("/x", body)).await });
    for sent in 1..=5 {
        feed.send(Ok(Bytes::from_static(b"0123456789"))).await.expect("the body is read");
        until(&engine, PATIENCE, "a piece arrives by itself", |counts| counts.body_bytes >= sent * 10).await;
    }
    drop(feed);
    let response = sending.await.expect("no panic").expect("answer");
    assert_eq!(read_all(response.into_body()).await.expect("body").len(), 50);
}

const BLOCK: usize = 64 * 1024;

pub(super) async fn stalled_reader_stops_the_runner(subject: &dyn Subject) {
    let blocks = usize::try_from(subject.buffered_at_most()).expect("fits") * 4 / BLOCK;
    let engine = MockEngine::new(move |seen| match seen.head.uri.path() {
        "/big" => Script::chunks(std::iter::repeat_n(Bytes::from_static(&[b'x'; BLOCK]), blocks)),
        _ => Script::text(""),
    });
    let connected = subject.connect(engine.clone()).await;
    let mut body = connected.link.send(post("/big", "{}")).await.expect("answer").into_body();
    let first = next(&mut body).await.expect("a chunk").expect("a chunk");
    // Other requests are the clock: when many have come and gone and nothing more of the big answer was
    // taken from the engine, nothing more will be.
    let mut before = 0;
    while before != engine.counts().sent_bytes {
        before = engine.counts().sent_bytes;
        for _ in 0..100 {
            let response = connected.link.send(post("/tick", "{}")).await.expect("answer");
            read_all(response.into_body()).await.expect("body");
        }
    }
    let buffered = engine.counts().sent_bytes - first.len() as u64;
    assert!(buffered <= subject.buffered_at_most(), "{buffered} bytes lie between engine and reader");
    let rest = read_all(body).await.expect("the rest comes when it is read");
    assert_eq!(first.len() + rest.len(), blocks * BLOCK);
}

pub(super) async fn stalled_reader_stalls_nobody(subject: &dyn Subject) {
    let blocks = usize::try_from(subject.buffered_at_most()).expect("fits") * 2 / BLOCK;
    let engine = MockEngine::new(move |seen| match seen.head.uri.path() {
        "/big" => Script::chunks(std::iter::repeat_n(Bytes::from_static(&[b'x'; BLOCK]), blocks)),
        _ => Script::chunks(["one ", "two ", "three"]),
    });
    let connected = subject.connect(engine.clone()).await;
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let body = connected.link.send(post("/big", "{}")).await.expect("answer").into_body();
        stalled.push(body);
    }
    for _ in 0..50 {
        let response = connected.link.send(post("/small", "{}")).await.expect("answer");
        assert_eq!(read_all(response.into_body()).await.expect("body"), b"one two three");
    }
    drop(stalled);
    until(&engine, PATIENCE, "the stalled ones are cancelled", |counts| counts.active() == 0).await;
}
