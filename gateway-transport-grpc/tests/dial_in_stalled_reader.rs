//! Clients that stop reading hold up themselves and nobody else.

mod dial_in_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dial_in_support::{Engine, Gateway, Network, agent, body, next_chunk, run, soon};
use gateway_core::{Command, LinkBody, LinkRequest, Runner};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const BEAT: Duration = Duration::from_millis(100);

/// What the stalled streams' engine has got rid of.
#[derive(Default)]
struct Flood {
    bytes: AtomicUsize,
    /// Its streams that were cancelled.
    cancelled: AtomicUsize,
}

/// An engine that writes a chunk every [`BEAT`], or at `/flood` as many as are taken, of so many bytes.
fn engine(flood: Arc<Flood>, flood_chunk: usize) -> Arc<Engine> {
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

async fn open(runner: &Runner, path: &str) -> LinkBody {
    let request = http::Request::post(path).body("{}".into()).unwrap();
    soon(runner.link().send(request)).await.unwrap().into_body()
}

/// Reads for 30 s and gives the longest time between two chunks.
async fn longest_gap(mut body: LinkBody) -> Duration {
    let began = Instant::now();
    let (mut last, mut longest) = (began, Duration::ZERO);
    while began.elapsed() < Duration::from_secs(30) {
        next_chunk(&mut body).await.unwrap().unwrap();
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    longest
}

/// A command and its answer, there and back, beside the data.
async fn heard(runner: &Runner) {
    let began = Instant::now();
    soon(runner.link().command(Command::Status)).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(10), "a command waits behind data");
}

#[tokio::test(start_paused = true)]
async fn of_256_streams_one_stalls_and_the_pace_of_the_others_does_not_change() {
    let flood = Arc::new(Flood::default());
    let (gateway, network) = (Gateway::default().await, Network::default());
    let _hosted = network.host("gw", &gateway);
    let _agent = run(agent(&network, &["gw"], engine(flood.clone(), 1000), 256));
    let runner = gateway.joined("gpu-1").await;
    let stalled = open(&runner, "/flood").await;
    let mut readers = JoinSet::new();
    for _ in 0..255 {
        readers.spawn(longest_gap(open(&runner, "/").await));
    }
    sleep(Duration::from_secs(1)).await;
    let held = flood.bytes.load(Ordering::Relaxed);
    sleep(Duration::from_secs(14)).await;
    heard(&runner).await;
    assert_eq!(flood.bytes.load(Ordering::Relaxed), held, "the stalled stream still takes chunks");
    assert!((60 * 1024..80 * 1024).contains(&held), "{held} bytes are held for it");
    // A cancel passes as well.
    let began = Instant::now();
    drop(stalled);
    while flood.cancelled.load(Ordering::Relaxed) == 0 {
        assert!(began.elapsed() < Duration::from_millis(10), "a cancel waits behind data");
        tokio::task::yield_now().await;
    }
    let mut longest = Duration::ZERO;
    while let Some(gap) = readers.join_next().await {
        longest = longest.max(gap.unwrap());
    }
    println!("held for the stalled stream: {held} bytes; longest gap of the 255 others: {longest:?}");
    assert!(longest <= BEAT + Duration::from_millis(5), "a chunk came {longest:?} after the one before");
}

#[tokio::test(start_paused = true)]
async fn all_but_one_stall_in_tiny_chunks_and_that_one_goes_on() {
    let flood = Arc::new(Flood::default());
    let (gateway, network) = (Gateway::default().await, Network::default());
    let _hosted = network.host("gw", &gateway);
    let _agent = run(agent(&network, &["gw"], engine(flood.clone(), 16), 24));
    let runner = gateway.joined("gpu-1").await;
    let mut stalled = Vec::new();
    for _ in 0..23 {
        stalled.push(open(&runner, "/flood").await);
    }
    let reader = tokio::spawn(longest_gap(open(&runner, "/").await));
    sleep(Duration::from_secs(20)).await;
    let held = flood.bytes.load(Ordering::Relaxed);
    assert!(held >= 23 * 60 * 1024, "only {held} bytes are on their way: nobody is stalled");
    heard(&runner).await;
    let gap = reader.await.unwrap();
    println!("held for 23 stalled streams: {held} bytes; longest gap of the other: {gap:?}");
    assert!(gap <= BEAT + Duration::from_millis(5), "a chunk came {gap:?} after the one before");
    // They can go on where they stopped.
    for mut body in stalled {
        let mut read = 0;
        while read < 100_000 {
            read += soon(next_chunk(&mut body)).await.unwrap().unwrap().len();
        }
    }
}
