//! Load, unload and status at a gateway's word.

mod agent_support;

use std::time::Duration;

use agent_support::{Engine, Load, Network, agent, run, seconds};
use gateway_core::{Command, Model, ModelId, RunnerStatus};
use serde_json::json;
use tokio::time::Instant;

fn id(name: &str) -> ModelId {
    ModelId::new(name).unwrap()
}

#[tokio::test(start_paused = true)]
async fn load_and_unload_are_carried_out_and_answered_once_with_fresh_status() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let engine = Engine::idle();
    engine.set_load(Load::Hang);
    // Asked so seldom that fresh status can only come from asking anew.
    let _agent = run(agent(&network, &["gw"], &engine, 8).status_interval(Duration::from_secs(3600)));
    let (mut peer, _) = gateway.registered().await;
    peer.hear("heartbeat").await;

    peer.say(json!({"type": "load_model", "model_id": "large", "request_id": "r1"})).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(peer.pending(), None, "answered before it was loaded");
    engine.set_status(Some(RunnerStatus::serving([id("small"), id("large")])));
    engine.set_load(Load::Done);
    let answer = peer.until("command_response").await;
    assert_eq!((&answer["request_id"], &answer["success"]), (&json!("r1"), &json!(true)));
    assert_eq!(answer["error"], json!(null));
    assert_eq!(answer["status"]["engines"][0]["loaded_models"], json!(["small", "large"]));

    peer.say(json!({"type": "unload_model", "model_id": "small", "request_id": "r2"})).await;
    assert_eq!(peer.until("command_response").await["request_id"], "r2");
    assert_eq!(engine.commands(), [Command::LoadModel(id("large")), Command::UnloadModel(id("small"))]);
}

#[tokio::test(start_paused = true)]
async fn the_engines_own_name_for_a_model_is_understood() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let engine = Engine::idle();
    let mut status = RunnerStatus::serving([]);
    status.models.push(Model::loaded(id("llama")).with_local_name(id("llama.gguf")));
    engine.set_status(Some(status));
    let _agent = run(agent(&network, &["gw"], &engine, 8));
    let (mut peer, _) = gateway.registered().await;
    for name in ["llama.gguf", "llama"] {
        peer.say(json!({"type": "unload_model", "model_id": name, "request_id": "r"})).await;
        peer.until("command_response").await;
    }
    assert_eq!(engine.commands(), [Command::UnloadModel(id("llama")), Command::UnloadModel(id("llama"))]);
}

#[tokio::test(start_paused = true)]
async fn the_engines_refusal_is_passed_on_in_its_words() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let engine = Engine::idle();
    engine.set_load(Load::Refuse("no such file"));
    let _agent = run(agent(&network, &["gw"], &engine, 8));
    let (mut peer, _) = gateway.registered().await;
    peer.say(json!({"type": "load_model", "model_id": "x", "request_id": "r1"})).await;
    let answer = peer.until("command_response").await;
    assert_eq!((&answer["success"], &answer["error"]), (&json!(false), &json!("no such file")));
    assert_eq!(answer["status"]["health"], "healthy");

    peer.say(json!({"type": "load_model", "model_id": "", "request_id": "r2"})).await;
    let answer = peer.until("command_response").await;
    assert_eq!((&answer["success"], &answer["request_id"]), (&json!(false), &json!("r2")));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_takes_too_long_is_answered_with_an_error() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let engine = Engine::idle();
    engine.set_load(Load::Hang);
    let _agent = run(agent(&network, &["gw"], &engine, 8).command_timeout(Duration::from_secs(60)));
    let (mut peer, _) = gateway.registered().await;
    let begun = Instant::now();
    peer.say(json!({"type": "load_model", "model_id": "x", "request_id": "r1"})).await;
    let answer = peer.until("command_response").await;
    assert_eq!((seconds(begun), &answer["success"]), (60, &json!(false)));
    assert!(answer["error"].as_str().unwrap().contains("load_model within 60 s"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_load_holds_up_neither_heartbeats_nor_other_commands() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let engine = Engine::idle();
    engine.set_load(Load::Hang);
    let _agent = run(agent(&network, &["gw"], &engine, 8));
    let (mut peer, _) = gateway.registered().await;
    peer.hear("heartbeat").await;
    for n in 0..20 {
        peer.say(json!({"type": "load_model", "model_id": "x", "request_id": format!("r{n}")})).await;
    }
    // More than sixteen at once are refused; the others are under way.
    for n in 16..20 {
        let answer = peer.hear("command_response").await;
        assert_eq!((&answer["request_id"], &answer["success"]), (&json!(format!("r{n}")), &json!(false)));
    }
    peer.hear("heartbeat").await;
    peer.say(json!({"type": "ping", "timestamp": 1})).await;
    peer.hear("status_update").await;
    engine.set_load(Load::Done);
    for _ in 0..16 {
        assert_eq!(peer.until("command_response").await["success"], true);
    }
}

#[tokio::test(start_paused = true)]
async fn request_status_is_answered_with_what_the_engine_says_now() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let engine = Engine::idle();
    let _agent = run(agent(&network, &["gw"], &engine, 8).status_interval(Duration::from_secs(3600)));
    let (mut peer, _) = gateway.registered().await;
    peer.hear("heartbeat").await;
    engine.set_status(Some(RunnerStatus::serving([id("other")])));
    peer.say(json!({"type": "request_status", "request_id": "s1"})).await;
    let answer = peer.until("command_response").await;
    assert_eq!((&answer["request_id"], &answer["success"]), (&json!("s1"), &json!(true)));
    assert_eq!(answer["status"]["engines"][0]["loaded_models"], json!(["other"]));
}

#[tokio::test(start_paused = true)]
async fn the_other_gateways_hear_of_a_load_too() {
    let network = Network::default();
    let (mut a, mut b) = (network.gateway("a"), network.gateway("b"));
    let engine = Engine::idle();
    let _agent = run(agent(&network, &["a", "b"], &engine, 8).status_interval(Duration::from_secs(3600)));
    let (a, _) = a.registered().await;
    let (mut b, _) = b.registered().await;
    b.hear("heartbeat").await;
    engine.set_status(Some(RunnerStatus::serving([id("large")])));
    a.say(json!({"type": "load_model", "model_id": "large", "request_id": "r"})).await;
    let update = b.hear("status_update").await;
    assert_eq!(update["engines"][0]["loaded_models"], json!(["large"]));
}
