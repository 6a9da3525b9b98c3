//! The runner's slots hold for all of its gateways together.

mod agent_support;

use std::sync::Mutex;
use std::time::Duration;

use agent_support::{Engine, Network, Tunnel, agent, run};
use gateway_testkit::{ChunkSender, Script};
use serde_json::json;

/// An engine whose answers stay open until their feeder is dropped; the feeders come in order.
fn open_engine(answers: usize) -> (Engine, Vec<ChunkSender>) {
    let (feeders, scripts): (Vec<_>, Vec<_>) = (0..answers).map(|_| Script::fed()).unzip();
    let scripts = Mutex::new(scripts.into_iter());
    (Engine::new(move |_| scripts.lock().unwrap().next().unwrap()), feeders)
}

#[tokio::test(start_paused = true)]
async fn two_gateways_cannot_overload_the_engine() {
    let network = Network::default();
    let (mut a, mut b) = (network.gateway("a"), network.gateway("b"));
    let (engine, mut feeders) = open_engine(3);
    let _agent = run(agent(&network, &["a", "b"], &engine, 2));
    let (mut a, _) = a.registered().await;
    let (mut b, _) = b.registered().await;
    let (at, bt) = (a.tunnel().await, b.tunnel().await);

    let first = at.request("/1").await;
    let second = bt.request("/2").await;
    assert_eq!((first.status(), second.status()), (http::StatusCode::OK, http::StatusCode::OK));
    // Both gateways see one request on their own books and a runner with two slots.
    let refused = at.request("/3").await;
    assert_eq!(refused.status(), http::StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "1");
    let text = Tunnel::text(refused).await.unwrap();
    let error: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(error["error"]["type"], "engine_unavailable");
    assert_eq!(engine.mock.counts().started, 2, "the engine saw the one that was refused");

    // Both hear how busy it is in truth.
    for peer in [&mut a, &mut b] {
        peer.until_it(|message| message["load"] == json!({"active": 2, "queued": 0})).await;
    }

    // The end of a request gives its slot back, to whichever gateway.
    drop(feeders.remove(0));
    assert_eq!(Tunnel::text(first).await.unwrap(), "");
    let third = bt.request("/4").await;
    assert_eq!(third.status(), http::StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_gives_its_slot_back() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let (engine, _feeders) = open_engine(2);
    let _agent = run(agent(&network, &["gw"], &engine, 1));
    let (mut peer, _) = gateway.registered().await;
    let tunnel = peer.tunnel().await;
    let answer = tunnel.request("/1").await;
    assert_eq!(answer.status(), http::StatusCode::OK);
    drop(answer);
    engine.mock.until(|counts| counts.aborted == 1).await;
    assert_eq!(tunnel.request("/2").await.status(), http::StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_cut_connection_gives_all_of_its_slots_back() {
    let network = Network::default();
    let (mut a, mut b) = (network.gateway("a"), network.gateway("b"));
    let (engine, _feeders) = open_engine(8);
    let _agent = run(agent(&network, &["a", "b"], &engine, 4));
    let (mut a, _) = a.registered().await;
    let (mut b, _) = b.registered().await;
    let at = a.tunnel().await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(at.request("/a").await);
    }
    drop(a);
    engine.mock.until(|counts| counts.aborted == 4).await;
    let bt = b.tunnel().await;
    for _ in 0..4 {
        let answer = bt.request("/b").await;
        assert_eq!(answer.status(), http::StatusCode::OK);
        answers.push(answer);
    }
    b.until_it(|message| message["load"]["active"] == 4).await;
}

#[tokio::test(start_paused = true)]
async fn without_slots_the_agent_refuses_nothing() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let (engine, feeders) = open_engine(50);
    let _agent = run(agent(&network, &["gw"], &engine, 0).status_interval(Duration::from_secs(1)));
    let (mut peer, _) = gateway.registered().await;
    let tunnel = peer.tunnel().await;
    let mut answers = Vec::new();
    for _ in 0..50 {
        let answer = tunnel.request("/").await;
        assert_eq!(answer.status(), http::StatusCode::OK);
        answers.push(answer);
    }
    peer.until_it(|message| message["load"]["active"] == 50).await;
    drop(feeders);
    for answer in answers {
        Tunnel::text(answer).await.unwrap();
    }
    peer.until_it(|message| message["load"]["active"] == 0).await;
}
