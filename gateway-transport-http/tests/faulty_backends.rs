//! Runners that accept and never answer, that reset, that answer 500, that cannot be connected to: probes of them are
//! bounded in time, and nobody else is touched.

mod support;

use std::sync::Arc;
use std::time::Duration;

use gateway_core::{CancellationToken, Health, InMemoryRegistry, Registry, RunnerLink, RunnerSource};
use gateway_transport_http::{EngineKind, EngineLink, HttpLink, HttpRunner, HttpRunners};
use support::*;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

const MODELS: &str = r#"{"object":"list","data":[{"id":"m","object":"model","owned_by":"x"}]}"#;
const LIMIT: Duration = Duration::from_millis(200);

/// Takes connections from the kernel's point of view until its queue is full; from then on connecting hangs.
struct BlackHole {
    url: String,
    _listener: tokio::net::TcpListener,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    async fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(LIMIT, TcpStream::connect(address)).await {
            queued.push(stream);
            assert!(queued.len() < 100, "its queue does not fill up");
        }
        Self { url: format!("http://{address}"), _listener: listener, _queued: queued }
    }
}

async fn silent() -> Server {
    Server::start(|_, mut peer| async move { peer.ended().await }).await
}

async fn resetting() -> Server {
    Server::start(|_, peer| async move { drop(peer) }).await
}

#[tokio::test]
async fn every_probe_ends_in_time_whatever_the_kind() {
    let (hole, silent, resetting) = (BlackHole::new().await, silent().await, resetting().await);
    for kind in EngineKind::ALL {
        for url in [&hole.url, &silent.url, &resetting.url] {
            let engine = EngineLink::new(HttpLink::new(url).unwrap()).kind(kind).probe_timeout(LIMIT);
            let asked = Instant::now();
            let probe = soon("the probe", engine.command(gateway_core::Command::Status)).await;
            assert!(probe.is_err(), "{kind} at {url}: {probe:?}");
            assert!(asked.elapsed() < LIMIT * 5, "{kind} at {url} took {:?}", asked.elapsed());
        }
    }
}

#[tokio::test]
async fn the_others_join_at_once_and_stay_well() {
    let (hole, silent, resetting) = (BlackHole::new().await, silent().await, resetting().await);
    let broken = Server::answering(answer(500, "broken")).await;
    let fine = Scripted::start([("/v1/models", 200, MODELS)]).await;
    let bad = [&hole.url, &silent.url, &resetting.url, &broken.url];
    let entries = bad.iter().map(|url| HttpRunner::new(url).unwrap().models(["m"]));
    let entries =
        entries.chain(bad.iter().map(|url| HttpRunner::new(url).unwrap().id(format!("asked {url}"))));
    let runners = HttpRunners::list(entries.chain([HttpRunner::new(&fine.url).unwrap().id("fine")]))
        .probe_interval(Duration::from_millis(20))
        .probe_timeout(LIMIT);
    let registry = Arc::new(InMemoryRegistry::new());
    let (mut events, stop) = (registry.events(), CancellationToken::new());
    let began = Instant::now();
    let task = tokio::spawn(Box::new(runners).run(registry.clone(), stop.clone()));
    soon("the fine one", async {
        while registry.fleet().runner("fine").is_none() {
            events.next().await.unwrap();
        }
    })
    .await;
    assert!(began.elapsed() < LIMIT, "nobody waits for the others: {:?}", began.elapsed());
    soon("three failures of each", async {
        let ill = |runner: &&Arc<gateway_core::Runner>| runner.status().health == Health::Unhealthy;
        while registry.fleet().runners().iter().filter(ill).count() < bad.len() {
            events.next().await.unwrap();
        }
    })
    .await;
    let fleet = registry.fleet();
    assert_eq!(fleet.runners().len(), bad.len() + 1, "whose models are asked for and not told never joins");
    assert_eq!(fleet.runner("fine").unwrap().status().health, Health::Healthy);
    // Three probes each that took their full time, and a pause in between.
    assert!(began.elapsed() < LIMIT * 3 + PATIENCE / 5, "{:?}", began.elapsed());
    let asked = fine.asked("/v1/models").len();
    assert!(asked >= 5, "the fine one was asked at its own pace: {asked}");
    stop.cancel();
    soon("stopping", task).await.unwrap();
}
