//! What an agent reports while it is registered, and when.

mod agent_support;

use std::time::Duration;

use agent_support::{Engine, Network, Tunnel, agent, run, seconds};
use gateway_core::{Health, Model, ModelId, ModelState, ReportedLoad, RunnerStatus};
use gateway_testkit::Script;
use serde_json::json;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn the_first_heartbeat_comes_with_the_ack_and_then_one_every_interval() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let _agent = run(agent(&network, &["gw"], &Engine::idle(), 8));
    let (mut peer, _) = gateway.registered().await;
    let begun = Instant::now();
    for beat in 0..5 {
        // Nothing else comes: nothing has changed.
        let heartbeat = peer.hear("heartbeat").await;
        assert_eq!(seconds(begun), beat * 30);
        assert_eq!(heartbeat["health"], "healthy");
    }
}

#[tokio::test(start_paused = true)]
async fn the_interval_is_a_setting() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let builder = agent(&network, &["gw"], &Engine::idle(), 8);
    let _agent = run(builder.heartbeat_interval(Duration::from_secs(7)));
    let (mut peer, _) = gateway.registered().await;
    peer.hear("heartbeat").await;
    let begun = Instant::now();
    peer.hear("heartbeat").await;
    assert_eq!(seconds(begun), 7);
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_at_once_with_a_status_update() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let _agent = run(agent(&network, &["gw"], &Engine::idle(), 8));
    let (mut peer, _) = gateway.registered().await;
    peer.hear("heartbeat").await;
    let begun = Instant::now();
    for timestamp in 0..3 {
        peer.say(json!({"type": "ping", "timestamp": timestamp})).await;
        assert_eq!(peer.hear("status_update").await["health"], "healthy");
    }
    assert_eq!(seconds(begun), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_understood_does_no_harm() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let _agent = run(agent(&network, &["gw"], &Engine::idle(), 8));
    let (mut peer, _) = gateway.registered().await;
    peer.hear("heartbeat").await;
    peer.say_text("{").await;
    peer.say(json!({"type": "dance"})).await;
    peer.say(json!({"type": "load_model"})).await;
    peer.say(json!({"type": "ping", "timestamp": 1, "more": true})).await;
    peer.hear("status_update").await;
}

#[tokio::test(start_paused = true)]
async fn a_change_goes_out_at_once() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let engine = Engine::idle();
    let _agent = run(agent(&network, &["gw"], &engine, 8).status_interval(Duration::from_secs(2)));
    let (mut peer, _) = gateway.registered().await;
    peer.hear("heartbeat").await;
    let begun = Instant::now();
    let mut status = RunnerStatus::serving([ModelId::new("small").unwrap()]);
    status.models.push(Model::new(ModelId::new("large").unwrap(), ModelState::Available));
    engine.set_status(Some(status));
    let update = peer.hear("status_update").await;
    assert!(begun.elapsed() <= Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(update["engines"][0]["loaded_models"], json!(["small"]));
    assert_eq!(update["engines"][0]["available_models"].as_array().map(Vec::len), Some(2));
    // And only once.
    peer.hear("heartbeat").await;
}

#[tokio::test(start_paused = true)]
async fn three_failures_make_it_unhealthy_and_one_success_heals_it() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let engine = Engine::idle();
    let _agent = run(agent(&network, &["gw"], &engine, 8).status_interval(Duration::from_secs(5)));
    let (mut peer, _) = gateway.registered().await;
    peer.hear("heartbeat").await;
    engine.set_status(None);
    let asked = engine.asked();
    let update = peer.hear("status_update").await;
    assert_eq!(update["health"], "unhealthy");
    assert_eq!(engine.asked() - asked, 3);
    // It stays what it was otherwise, and so does the connection.
    assert_eq!(update["engines"][0]["loaded_models"], json!(["small"]));
    assert_eq!(peer.hear("heartbeat").await["health"], "unhealthy");

    engine.set_status(Some(RunnerStatus::serving([ModelId::new("small").unwrap()])));
    assert_eq!(peer.hear("status_update").await["health"], "healthy");
}

#[tokio::test(start_paused = true)]
async fn fewer_failures_change_nothing() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let engine = Engine::idle();
    let _agent = run(agent(&network, &["gw"], &engine, 8).status_interval(Duration::from_secs(5)));
    let (mut peer, _) = gateway.registered().await;
    peer.hear("heartbeat").await;
    for _ in 0..4 {
        engine.set_status(None);
        tokio::time::sleep(Duration::from_secs(10)).await;
        engine.set_status(Some(RunnerStatus::serving([ModelId::new("small").unwrap()])));
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    while let Some(message) = peer.pending() {
        assert_eq!((&message["type"], &message["health"]), (&json!("heartbeat"), &json!("healthy")));
    }
}

#[tokio::test(start_paused = true)]
async fn the_load_is_what_is_in_the_tunnel_or_what_the_engine_says_whichever_is_more() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let (chunks, script) = Script::fed();
    let script = std::sync::Mutex::new(Some(script));
    let engine = Engine::new(move |_| script.lock().unwrap().take().unwrap());
    let _agent = run(agent(&network, &["gw"], &engine, 8));
    let (mut peer, _) = gateway.registered().await;
    assert_eq!(peer.hear("heartbeat").await["load"], json!({"active": 0, "queued": 0}));

    let tunnel = peer.tunnel().await;
    let answer = tunnel.request("/v1/chat/completions").await;
    let busy = peer.until_it(|message| message["load"]["active"] == 1).await;
    assert_eq!(busy["type"], "status_update");

    let mut status = RunnerStatus::serving([ModelId::new("small").unwrap()]);
    status.load = Some(ReportedLoad { active: 5, queued: 2 });
    engine.set_status(Some(status.clone()));
    let told = peer.until_it(|message| message["load"]["active"] != 1).await;
    assert_eq!(told["load"], json!({"active": 5, "queued": 2}));

    status.load = Some(ReportedLoad { active: 0, queued: 0 });
    engine.set_status(Some(status));
    let told = peer.until_it(|message| message["load"]["active"] != 5).await;
    assert_eq!(told["load"]["active"], 1);

    assert!(chunks.send("hello").await);
    drop(chunks);
    assert_eq!(Tunnel::text(answer).await.unwrap(), "hello");
    peer.until_it(|message| message["load"]["active"] == 0).await;
}

#[tokio::test(start_paused = true)]
async fn one_poller_asks_the_engine_however_many_gateways_there_are() {
    let network = Network::default();
    let mut gateways = ["a", "b", "c"].map(|host| network.gateway(host));
    let engine = Engine::idle();
    let _agent = run(agent(&network, &["a", "b", "c"], &engine, 8).status_interval(Duration::from_secs(10)));
    let mut peers = Vec::new();
    for gateway in &mut gateways {
        peers.push(gateway.registered().await.0);
    }
    let before = engine.asked();
    tokio::time::sleep(Duration::from_secs(105)).await;
    assert_eq!(engine.asked() - before, 10);
    let mut status = RunnerStatus::serving([]);
    status.health = Health::Degraded;
    engine.set_status(Some(status));
    for peer in &mut peers {
        assert_eq!(peer.until("status_update").await["health"], "degraded");
    }
}
