//! Clients that stop reading hold up themselves and nobody else.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gateway_core::{LinkRequest, Runner, RunnerLink};
use gateway_transport_ws::protocol::{RunnerMessage, RunnerStatus};
use support::{Engine, Gateway, TunnelRunner, body, dropped, next_chunk, soon};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const BEAT: Duration = Duration::from_millis(100);

/// What the stalled streams' engine has got rid of, in bytes and chunks.
#[derive(Default)]
struct Flood {
    bytes: AtomicUsize,
    /// Its streams that were cancelled.
    cancelled: AtomicUsize,
}

/// An engine that writes a chunk every [`BEAT`], or at `/flood` as many as are taken, of so many bytes.
fn engine(flood: Arc<Flood>, flood_chunk: usize) -> Arc<dyn RunnerLink> {
    Engine::answering(move |request: LinkRequest| {
        let flood = flood.clone();
        let floods = request.uri().path() == "/flood";
        let (sender, written) = body();
        tokio::spawn(async move {
            loop {
                let chunk = if floods { flood_chunk } else { 40 };
                if sender.send(Ok(Bytes::from(vec![b'x'; chunk]))).await.is_err() {
                    flood.cancelled.fetch_add(usize::from(floods), Ordering::Relaxed);
                    return;
                }
                if floods {
                    flood.bytes.fetch_add(chunk, Ordering::Relaxed);
                } else {
                    sleep(BEAT).await;
                }
            }
        });
        async { Ok(http::Response::new(written)) }
    })
}

async fn open(runner: &Runner, path: &str) -> gateway_core::LinkBody {
    let request = http::Request::post(path).body("{}".into()).unwrap();
    soon(runner.link().send(request)).await.unwrap().into_body()
}

/// Reads for 30 s and gives the longest time between two chunks.
async fn longest_gap(mut body: gateway_core::LinkBody) -> Duration {
    let began = Instant::now();
    let mut last = began;
    let mut longest = Duration::ZERO;
    while began.elapsed() < Duration::from_secs(30) {
        next_chunk(&mut body).await.unwrap().unwrap();
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    longest
}

async fn heard(gateway: &Gateway, tunnel: &TunnelRunner, model: &str) {
    let status = gateway_core::RunnerStatus::serving([gateway_core::ModelId::new(model).unwrap()]);
    let began = Instant::now();
    tunnel.say(&RunnerMessage::StatusUpdate(RunnerStatus::from_core(&status, "test")));
    gateway.until(|fleet| fleet.model(model).is_some()).await;
    assert!(began.elapsed() < Duration::from_millis(10), "a status update waits behind data");
}

#[tokio::test(start_paused = true)]
async fn of_256_streams_one_stalls_and_the_pace_of_the_others_does_not_change() {
    let flood = Arc::new(Flood::default());
    let gateway = Gateway::default().await;
    let tunnel = TunnelRunner::start(&gateway, "r1", 256, engine(flood.clone(), 1000)).await;
    let runner = gateway.runner("r1").unwrap();
    let stalled = open(&runner, "/flood").await;
    let mut readers = JoinSet::new();
    for _ in 0..255 {
        readers.spawn(longest_gap(open(&runner, "/").await));
    }
    sleep(Duration::from_secs(1)).await;
    let held = flood.bytes.load(Ordering::Relaxed);
    sleep(Duration::from_secs(14)).await;
    heard(&gateway, &tunnel, "news").await;
    assert_eq!(flood.bytes.load(Ordering::Relaxed), held, "the stalled stream still takes chunks");
    assert!(held < 200 * 1024, "{held} bytes are held for it");
    // A cancel passes as well.
    let began = Instant::now();
    drop(stalled);
    while flood.cancelled.load(Ordering::Relaxed) == 0 {
        assert!(began.elapsed() < Duration::from_millis(10), "a cancel waits behind data");
        tokio::task::yield_now().await;
    }
    while let Some(gap) = readers.join_next().await {
        let gap = gap.unwrap();
        assert!(gap <= BEAT + Duration::from_millis(5), "a chunk came {gap:?} after the one before");
    }
}

#[tokio::test(start_paused = true)]
async fn all_but_one_stall_in_tiny_chunks_and_that_one_goes_on() {
    let flood = Arc::new(Flood::default());
    let gateway = Gateway::default().await;
    let tunnel = TunnelRunner::start(&gateway, "r1", 24, engine(flood.clone(), 16)).await;
    let runner = gateway.runner("r1").unwrap();
    let mut stalled = Vec::new();
    for _ in 0..23 {
        stalled.push(open(&runner, "/flood").await);
    }
    let reader = tokio::spawn(longest_gap(open(&runner, "/").await));
    sleep(Duration::from_secs(20)).await;
    let held = flood.bytes.load(Ordering::Relaxed);
    assert!(held >= 23 * 60 * 1024, "only {held} bytes are on their way: nobody is stalled");
    heard(&gateway, &tunnel, "news").await;
    let gap = reader.await.unwrap();
    assert!(gap <= BEAT + Duration::from_millis(5), "a chunk came {gap:?} after the one before");
    // They can go on where they stopped.
    for mut body in stalled {
        let mut read = 0;
        while read < 100_000 {
            read += soon(next_chunk(&mut body)).await.unwrap().unwrap().len();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_stream_that_is_dropped_gives_its_engine_up() {
    let (sender, written) = body();
    let written = std::sync::Mutex::new(Some(written));
    let engine = Engine::answering(move |_| {
        let written = support::lock(&written).take().unwrap();
        async { Ok(http::Response::new(written)) }
    });
    let gateway = Gateway::default().await;
    let _tunnel = TunnelRunner::start(&gateway, "r1", 1, engine).await;
    let stalled = open(&gateway.runner("r1").unwrap(), "/").await;
    while let Ok(sent) =
        tokio::time::timeout(Duration::from_secs(1), sender.send(Ok(Bytes::from(vec![0; 9000])))).await
    {
        sent.unwrap();
    }
    drop(stalled);
    dropped(&sender).await;
}
