//! What an agent says when it dials a gateway, and what it makes of the answer.

mod agent_support;

use std::time::Duration;

use agent_support::{Engine, Network, agent, run, seconds, spec};
use serde_json::{Value, json};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn register_says_who_the_runner_is_and_how() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let spec = spec(8).name("Big one").machine("gpu-server").label("zone", "eu");
    let builder = agent(&network, &["gw"], &Engine::idle(), 8).spec(spec).http_port(9000);
    let _agent = run(builder.engine_type("llama_cpp"));

    let (_peer, register) = gateway.registered().await;
    let expected = json!({
        "type": "register",
        "runner_id": "gpu-1",
        "runner_name": "Big one",
        "machine_type": "gpu-server",
        "http_port": 9000,
        "protocol_version": 1,
        "auth_token": "secret",
        "mac_address": null,
        "slots": 8,
        "labels": {"zone": "eu"},
        "tunnel": {"version": 1, "max_streams": 8},
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&register[field], value, "{field}");
    }
    // The engine was asked before: nobody has to wait for the models.
    let status = &register["status"];
    assert_eq!(status["health"], "healthy");
    assert_eq!(status["engines"][0]["engine_type"], "llama_cpp");
    assert_eq!(status["engines"][0]["loaded_models"], json!(["small"]));
}

#[tokio::test(start_paused = true)]
async fn without_the_tunnel_nothing_of_it_is_said() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let _agent = run(agent(&network, &["gw"], &Engine::idle(), 0).tunnel(false));
    let (mut peer, register) = gateway.registered().await;
    assert_eq!(register["http_port"], 8080);
    for field in ["tunnel", "slots", "labels"] {
        assert_eq!(register.get(field), None);
    }
    // Requests pass the agent by, and the engine does not tell: how busy it is is unknown, not zero.
    assert_eq!(peer.hear("heartbeat").await.get("load"), None);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_does_not_know_the_tunnel_is_served_all_the_same() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let _agent = run(agent(&network, &["gw"], &Engine::idle(), 8));
    let mut peer = gateway.accept().await;
    peer.hear("register").await;
    peer.say(json!({"type": "register_ack", "runner_id": "gpu-1"})).await;
    assert_eq!(peer.hear("heartbeat").await["health"], "healthy");
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_was_not_asked_for_is_not_served() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let _agent = run(agent(&network, &["gw"], &Engine::idle(), 8).tunnel(false));
    let mut peer = gateway.accept().await;
    peer.hear("register").await;
    let tunnel = json!({"version": 1, "max_streams": 8});
    peer.say(json!({"type": "register_ack", "runner_id": "gpu-1", "tunnel": tunnel})).await;
    assert_eq!(peer.hear("heartbeat").await.get("load"), None);
}

#[tokio::test(start_paused = true)]
async fn other_words_before_the_ack_are_not_taken_for_it() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let _agent = run(agent(&network, &["gw"], &Engine::idle(), 8));
    let mut peer = gateway.accept().await;
    peer.hear("register").await;
    peer.say_text("no JSON").await;
    peer.say(json!({"type": "news"})).await;
    peer.say(json!({"type": "ping", "timestamp": 1})).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(peer.pending(), None);
    peer.say(json!({"type": "register_ack", "runner_id": "gpu-1"})).await;
    peer.hear("heartbeat").await;
}

#[tokio::test(start_paused = true)]
async fn without_an_ack_in_time_it_dials_again() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let _agent = run(agent(&network, &["gw"], &Engine::idle(), 8).ack_timeout(Duration::from_secs(10)));
    let mut silent = gateway.accept().await;
    let begun = Instant::now();
    silent.hear("register").await;
    assert!(!silent.ended().await);
    assert_eq!(seconds(begun), 10);
    gateway.registered().await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_does_not_speak_is_left_after_the_connect_timeout() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let _agent = run(agent(&network, &["gw"], &Engine::idle(), 8).connect_timeout(Duration::from_secs(3)));
    let begun = Instant::now();
    let _mute = gateway.dialled().await;
    gateway.registered().await;
    assert!(begun.elapsed() >= Duration::from_secs(3) && begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_keeps_no_runner_from_registering() {
    use gateway_core::{
        Command, CommandReply, LinkDescription, LinkError, LinkRequest, LinkResponse, RunnerLink,
    };
    struct Hangs;
    #[async_trait::async_trait]
    impl RunnerLink for Hangs {
        fn describe(&self) -> LinkDescription {
            LinkDescription { transport: "hangs", address: None }
        }
        async fn send(&self, _: LinkRequest) -> Result<LinkResponse, LinkError> {
            std::future::pending().await
        }
        async fn command(&self, _: Command) -> Result<CommandReply, LinkError> {
            std::future::pending().await
        }
    }
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let begun = Instant::now();
    let builder = agent(&network, &["gw"], &Engine::idle(), 8).engine(std::sync::Arc::new(Hangs));
    let _agent = run(builder);
    let (_peer, register) = gateway.registered().await;
    assert_eq!(seconds(begun), 5);
    assert_eq!(register["status"]["health"], "starting");
    assert_eq!(register["status"]["engines"][0]["loaded_models"], Value::Array(Vec::new()));
}
