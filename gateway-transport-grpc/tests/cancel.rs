//! Whoever goes away ends the call on the worker, within 100 ms from every moment on, as often as it likes.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gateway_core::{LinkBody, RunnerLink};
use gateway_testkit::conformance::CANCEL_BOUND;
use gateway_transport_grpc::{Dialect, GrpcLink};
use support::{DIALECTS, PATIENCE, Reply, Worker, link, next, post, sent, streamed, whole};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

/// A worker that sends these chunks, stands still, and tells when it has begun and when it was cancelled.
fn still(chunks: &'static [&'static str]) -> (Worker, mpsc::Receiver<&'static str>) {
    let (tell, told) = mpsc::channel(64);
    let worker = Worker::new(move |_, reply: Reply| {
        let tell = tell.clone();
        async move {
            for chunk in chunks {
                reply.text(*chunk).await;
            }
            let _ = tell.send("begun").await;
            reply.cancelled().await;
            let _ = tell.send("cancelled").await;
        }
    });
    (worker, told)
}

async fn told(told: &mut mpsc::Receiver<&'static str>, limit: std::time::Duration) -> &'static str {
    timeout(limit, told.recv()).await.expect("told in time").expect("a worker")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_first_byte() {
    for dialect in DIALECTS {
        // Loading progress is no first byte either.
        for chunks in [&[][..], &["[模型加载] 10%", "[模型加载] 20%"][..]] {
            let (worker, mut saw) = still(chunks);
            let served = worker.serve(dialect).await;
            let link = Arc::new(link(&served));
            for request in [streamed, whole] {
                let sending = link.clone();
                let sending = tokio::spawn(async move { sending.send(request()).await.map(drop) });
                assert_eq!(told(&mut saw, PATIENCE).await, "begun");
                sending.abort();
                assert_eq!(told(&mut saw, CANCEL_BOUND).await, "cancelled");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_mid_answer() {
    let (worker, mut saw) = still(&["first"]);
    let served = worker.serve(Dialect::Packaged).await;
    let link = link(&served);
    for _ in 0..2 {
        while saw.try_recv().is_ok() {}
        let mut body: LinkBody = sent(&link, streamed()).await.into_body();
        assert!(next(&mut body).await.unwrap().is_ok());
        while told(&mut saw, PATIENCE).await != "begun" {}
        drop(body);
        assert_eq!(told(&mut saw, CANCEL_BOUND).await, "cancelled");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_sequence_ends_the_work() {
    let (worker, mut saw) = still(&["one tw", "o three", " four"]);
    let served = worker.serve(Dialect::Plain).await;
    let link = link(&served);
    let body = r#"{"model":"m","stream":true,"prompt":"p","stop":["two"]}"#;
    let events =
        support::events(&support::text(sent(&link, post("/v1/completions", body)).await).await.unwrap());
    let said: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(said, "one ");
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "stop");
    while told(&mut saw, CANCEL_BOUND).await != "cancelled" {}
}

/// HTTP/2 libraries count resets against the connection: none may be counted here, over its whole life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_limit_over_the_life_of_a_connection() {
    const CANCELS: usize = 5_000;
    let (begun, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let cancelled = Arc::new(AtomicUsize::new(0));
    let worker = {
        let (begun, finish, cancelled) = (begun.clone(), finish.clone(), cancelled.clone());
        Worker::new(move |asked, reply: Reply| {
            let (begun, finish, cancelled) = (begun.clone(), finish.clone(), cancelled.clone());
            async move {
                if asked.prompt == "kept" {
                    begun.notify_one();
                    reply.text("still ").await;
                    finish.notified().await;
                    reply.text("here").await;
                    return reply.end().await;
                }
                begun.notify_one();
                // Busy sending when it is cancelled, so that much is on its way that nobody wants.
                while reply.text("x").await {}
                cancelled.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    let served = worker.serve(Dialect::Packaged).await;
    let link: Arc<GrpcLink> = Arc::new(link(&served));
    let kept = post("/v1/completions", r#"{"model":"m","stream":true,"prompt":"kept"}"#);
    let kept = sent(&link, kept).await;
    timeout(PATIENCE, begun.notified()).await.expect("it arrives");
    for _ in 0..CANCELS {
        let other = link.clone();
        let sending = tokio::spawn(async move { other.send(streamed()).await.map(drop) });
        timeout(PATIENCE, begun.notified()).await.expect("it arrives");
        sending.abort();
        let _ = sending.await;
    }
    let all_seen = async {
        while cancelled.load(Ordering::SeqCst) < CANCELS {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, all_seen).await.expect("every cancel reaches the worker");
    finish.notify_one();
    let events = support::events(&support::text(kept).await.expect("it is the same connection"));
    let said: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(said, "still here");
}
