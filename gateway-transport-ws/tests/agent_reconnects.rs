//! What an agent does when a connection fails or ends.

mod agent_support;

use std::time::Duration;

use agent_support::{Engine, Network, agent, run};
use futures_util::{SinkExt, StreamExt};
use gateway_transport_ws::agent::Backoff;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;

fn backoff(min_ms: u64, max_ms: u64) -> Backoff {
    Backoff::new(Duration::from_millis(min_ms), Duration::from_millis(max_ms)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_cut_is_dialled_again_under_the_same_id() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let _agent = run(agent(&network, &["gw"], &Engine::idle(), 8));
    let (peer, first) = gateway.registered().await;
    drop(peer);
    let begun = Instant::now();
    let (peer, second) = gateway.registered().await;
    assert!(begun.elapsed() <= Backoff::MIN + Duration::from_millis(10), "{:?}", begun.elapsed());
    assert_eq!(first["runner_id"], second["runner_id"]);
    // So is one that ends with a close frame.
    peer.close().await;
    let (mut peer, _) = gateway.registered().await;
    peer.hear("heartbeat").await;
}

#[tokio::test(start_paused = true)]
async fn waits_grow_up_to_the_bound_while_nothing_works() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let _agent = run(agent(&network, &["gw"], &Engine::idle(), 8).backoff(backoff(1000, 8000)));
    let mut waits = Vec::new();
    drop(gateway.dialled().await);
    for _ in 0..200 {
        let begun = Instant::now();
        drop(gateway.dialled().await);
        waits.push(begun.elapsed());
    }
    let slack = Duration::from_millis(5);
    for (n, wait) in waits.iter().enumerate() {
        let ceiling = Duration::from_secs(1 << n.min(3));
        assert!(*wait <= ceiling + slack, "wait {n} was {wait:?}");
    }
    // Full jitter: spread over all of it, so the mean is near the middle. Six standard deviations wide.
    let mean = waits[3..].iter().sum::<Duration>().as_secs_f64() / 197.0;
    assert!((3.0..5.0).contains(&mean), "{mean}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_lived_a_while_starts_the_waits_anew() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let _agent = run(agent(&network, &["gw"], &Engine::idle(), 8).backoff(backoff(10, 60_000)));
    for _ in 0..10 {
        // Long waits would be due after this many failures.
        for _ in 0..20 {
            drop(gateway.dialled().await);
        }
        let (peer, _) = gateway.registered().await;
        tokio::time::sleep(Duration::from_secs(61)).await;
        drop(peer);
        let begun = Instant::now();
        drop(gateway.dialled().await);
        assert!(begun.elapsed() <= Duration::from_millis(20), "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_throws_runners_out_at_once_is_not_dialled_at_full_pace() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let _agent = run(agent(&network, &["gw"], &Engine::idle(), 8).backoff(backoff(1000, 8000)));
    let begun = Instant::now();
    for _ in 0..100 {
        drop(gateway.registered().await);
    }
    // With waits that start anew each time it would be some 50 s.
    assert!(begun.elapsed() > Duration::from_secs(200), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_waits_for_at_least_half_of_the_longest_wait() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let _agent = run(agent(&network, &["gw"], &Engine::idle(), 8));
    for code in ["AUTH_FAILED", "PROTOCOL_ERROR", "PARSE_ERROR"] {
        let mut peer = gateway.accept().await;
        peer.hear("register").await;
        peer.say(json!({"type": "error", "code": code, "message": "Invalid auth token"})).await;
        peer.close().await;
        let begun = Instant::now();
        drop(gateway.dialled().await);
        assert!(begun.elapsed() >= Backoff::MAX / 2 && begun.elapsed() <= Backoff::MAX * 2, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_heard_even_if_the_close_comes_with_it() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let _agent = run(agent(&network, &["gw"], &Engine::idle(), 8));
    let ack = json!({"type": "register_ack", "runner_id": "gpu-1"});
    let error = json!({"type": "error", "code": "AUTH_FAILED", "message": "not any more"});
    for said_before in [None, Some(ack)] {
        let mut socket = accept_async(gateway.dialled().await).await.unwrap();
        socket.next().await.unwrap().unwrap();
        if let Some(ack) = said_before {
            socket.send(Message::text(ack.to_string())).await.unwrap();
            socket.next().await.unwrap().unwrap();
        }
        // One write and the end, so that all of it is read in one go.
        socket.feed(Message::text(error.to_string())).await.unwrap();
        socket.feed(Message::Close(None)).await.unwrap();
        socket.flush().await.unwrap();
        drop(socket);
        let begun = Instant::now();
        drop(gateway.dialled().await);
        assert!(begun.elapsed() >= Backoff::MAX / 2, "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_registration_counts_too() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let _agent = run(agent(&network, &["gw"], &Engine::idle(), 8));
    let (peer, _) = gateway.registered().await;
    peer.say(json!({"type": "error", "code": "REPLACED", "message": "another one came"})).await;
    peer.close().await;
    let begun = Instant::now();
    gateway.dialled().await;
    assert!(begun.elapsed() >= Backoff::MAX / 2, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_speaks_no_websocket_is_dialled_again() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let _agent = run(agent(&network, &["gw"], &Engine::idle(), 8));
    let mut stream = gateway.dialled().await;
    stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let begun = Instant::now();
    let mut stream = gateway.dialled().await;
    assert!(begun.elapsed() >= Backoff::MAX / 2, "a wrong path is for people to mend");
    stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let (mut peer, _) = gateway.registered().await;
    peer.hear("heartbeat").await;
}

#[tokio::test(start_paused = true)]
async fn one_gateway_that_is_away_does_not_disturb_the_other() {
    let network = Network::default();
    let mut here = network.gateway("here");
    let _agent = run(agent(&network, &["away", "here"], &Engine::idle(), 8));
    let (mut peer, _) = here.registered().await;
    for _ in 0..10 {
        peer.hear("heartbeat").await;
    }
    let mut away = network.gateway("away");
    let (mut late, _) = away.registered().await;
    late.hear("heartbeat").await;
}
