//! How an agent ends.

mod agent_support;

use std::sync::Mutex;
use std::time::Duration;

use agent_support::{Engine, Network, Tunnel, agent, run, seconds};
use gateway_core::{ModelId, ReportedLoad, RunnerStatus};
use gateway_testkit::{ChunkSender, Script};
use serde_json::json;
use tokio::time::Instant;

fn open_engine() -> (ChunkSender, Engine) {
    let (feeder, script) = Script::fed();
    let script = Mutex::new(Some(script));
    (feeder, Engine::new(move |_| script.lock().unwrap().take().unwrap()))
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_goes_on_and_nothing_new_comes_in() {
    let network = Network::default();
    let (mut a, mut b) = (network.gateway("a"), network.gateway("b"));
    let (feeder, engine) = open_engine();
    let agent = run(agent(&network, &["a", "b"], &engine, 8));
    let (mut a, _) = a.registered().await;
    let (mut b, _) = b.registered().await;
    a.hear("heartbeat").await;
    b.hear("heartbeat").await;
    let (at, bt) = (a.tunnel().await, b.tunnel().await);
    let answer = at.request("/1").await;
    assert!(feeder.send("begun, ").await);

    agent.stop.cancel();
    for peer in [&mut a, &mut b] {
        assert_eq!(peer.until("status_update").await["health"], "shutting_down");
    }
    for tunnel in [&at, &bt] {
        let refused = tunnel.request("/2").await;
        assert_eq!(refused.status(), http::StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key("retry-after"));
    }
    assert_eq!(engine.mock.counts().started, 1);
    // Heartbeats go on, and say the same.
    tokio::time::sleep(Duration::from_secs(20)).await;
    a.say(json!({"type": "ping", "timestamp": 1})).await;
    assert_eq!(a.until("status_update").await["health"], "shutting_down");
    a.say(json!({"type": "load_model", "model_id": "x", "request_id": "r"})).await;
    assert_eq!(a.until("command_response").await["success"], false);
    assert_eq!(engine.commands(), []);

    assert!(agent.is_running());
    assert!(feeder.send("done").await);
    drop(feeder);
    assert_eq!(Tunnel::text(answer).await.unwrap(), "begun, done");
    agent.returned().await;
    assert!(a.ended().await && b.ended().await, "closed without a close frame");
}

#[tokio::test(start_paused = true)]
async fn an_idle_agent_returns_at_once() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let agent = run(agent(&network, &["gw"], &Engine::idle(), 8));
    let (mut peer, _) = gateway.registered().await;
    peer.hear("heartbeat").await;
    let _tunnel = peer.tunnel().await;
    let begun = Instant::now();
    agent.stop.cancel();
    assert_eq!(peer.hear("status_update").await["health"], "shutting_down");
    agent.returned().await;
    assert_eq!(seconds(begun), 0);
    assert!(peer.ended().await);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_never_used_its_tunnel_gets_a_close_frame_too() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let agent = run(agent(&network, &["gw"], &Engine::idle(), 8));
    let (mut peer, _) = gateway.registered().await;
    peer.hear("heartbeat").await;
    let begun = Instant::now();
    agent.stop.cancel();
    agent.returned().await;
    assert!(seconds(begun) <= 1);
    assert!(peer.ended().await);
}

#[tokio::test(start_paused = true)]
async fn the_last_bytes_of_an_answer_go_out_before_the_close() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let engine = Engine::new(|_| Script::chunks((0..64).map(|_| vec![b'x'; 1000])));
    let agent = run(agent(&network, &["gw"], &engine, 8));
    let (mut peer, _) = gateway.registered().await;
    let tunnel = peer.tunnel().await;
    let answer = tunnel.request("/").await;
    engine.mock.until(|counts| counts.finished == 1).await;
    agent.stop.cancel();
    let text = Tunnel::text(answer).await.unwrap();
    assert_eq!(text.len(), 64_000);
    agent.returned().await;
    assert!(peer.ended().await);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_all_of_its_answer_though_the_engine_is_done() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let engine = Engine::new(|_| Script::text(vec![b'x'; 100_000]));
    let agent = run(agent(&network, &["gw"], &engine, 8));
    let (mut peer, _) = gateway.registered().await;
    let tunnel = peer.tunnel().await;
    let answer = tunnel.request("/").await;
    engine.mock.until(|counts| counts.finished == 1).await;
    agent.stop.cancel();
    // Reads a piece every now and then; more is waiting at the runner than one window.
    let mut body = answer.into_body();
    let mut got = 0;
    while let Some(piece) = body.data().await {
        got += piece.as_ref().unwrap().len();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let _ = body.flow_control().release_capacity(piece.unwrap().len());
    }
    assert_eq!(got, 100_000);
    agent.returned().await;
    assert!(peer.ended().await);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stalls_holds_it_up_no_longer_than_the_drain_timeout() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let engine = Engine::new(|_| Script::text(vec![b'x'; 100_000]));
    let agent = run(agent(&network, &["gw"], &engine, 8).drain_timeout(Duration::from_secs(9)));
    let (mut peer, _) = gateway.registered().await;
    let tunnel = peer.tunnel().await;
    let _stalled = tunnel.request("/").await;
    engine.mock.until(|counts| counts.finished == 1).await;
    let begun = Instant::now();
    agent.stop.cancel();
    agent.returned().await;
    assert_eq!(seconds(begun), 9);
    assert!(peer.ended().await);
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_waits_for_a_slow_reader_still_shows_that_it_lives() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let engine = Engine::new(|_| Script::text(vec![b'x'; 100_000]));
    let agent = run(agent(&network, &["gw"], &engine, 8).drain_timeout(Duration::from_secs(200)));
    let (mut peer, _) = gateway.registered().await;
    let tunnel = peer.tunnel().await;
    let answer = tunnel.request("/").await;
    engine.mock.until(|counts| counts.finished == 1).await;
    agent.stop.cancel();
    peer.until_it(|message| message["health"] == "shutting_down").await;
    // A gateway gives up on a runner that is silent for 90 s.
    for _ in 0..4 {
        let begun = Instant::now();
        assert_eq!(peer.until("heartbeat").await["health"], "shutting_down");
        assert!(seconds(begun) <= 30);
    }
    let mut body = answer.into_body();
    let mut got = 0;
    while let Some(piece) = body.data().await {
        got += piece.as_ref().unwrap().len();
        let _ = body.flow_control().release_capacity(piece.unwrap().len());
    }
    assert_eq!(got, 100_000);
    agent.returned().await;
}

#[tokio::test(start_paused = true)]
async fn after_the_drain_timeout_what_is_in_flight_is_cut() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let (_feeder, engine) = open_engine();
    let agent = run(agent(&network, &["gw"], &engine, 8).drain_timeout(Duration::from_secs(12)));
    let (mut peer, _) = gateway.registered().await;
    let tunnel = peer.tunnel().await;
    let answer = tunnel.request("/").await;
    let begun = Instant::now();
    agent.stop.cancel();
    agent.returned().await;
    assert_eq!(seconds(begun), 12);
    assert!(Tunnel::text(answer).await.is_err());
    assert_eq!(engine.mock.until(|counts| counts.active() == 0).await.aborted, 1);
    assert!(peer.ended().await);
}

#[tokio::test(start_paused = true)]
async fn an_agent_without_a_connection_returns_at_once() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let agent = run(agent(&network, &["gw", "away"], &Engine::idle(), 8));
    // One gateway is dialled and does not answer, the other is away.
    let _mute = gateway.dialled().await;
    let begun = Instant::now();
    agent.stop.cancel();
    agent.returned().await;
    assert_eq!(seconds(begun), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_while_draining_is_not_dialled_again() {
    let network = Network::default();
    let (mut a, mut b) = (network.gateway("a"), network.gateway("b"));
    let (feeder, engine) = open_engine();
    let agent = run(agent(&network, &["a", "b"], &engine, 8));
    let (mut peer, _) = a.registered().await;
    let (lost, _) = b.registered().await;
    let tunnel = peer.tunnel().await;
    let answer = tunnel.request("/").await;
    agent.stop.cancel();
    peer.until_it(|message| message["health"] == "shutting_down").await;
    drop(lost);
    let again = tokio::time::timeout(Duration::from_secs(20), b.accept()).await;
    assert!(again.is_err(), "dialled again");
    drop(feeder);
    Tunnel::text(answer).await.unwrap();
    agent.returned().await;
}

#[tokio::test(start_paused = true)]
async fn where_gateways_dial_back_the_engine_says_when_it_is_done() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let engine = Engine::idle();
    let mut status = RunnerStatus::serving([ModelId::new("small").unwrap()]);
    status.load = Some(ReportedLoad { active: 1, queued: 0 });
    engine.set_status(Some(status.clone()));
    let agent = run(agent(&network, &["gw"], &engine, 8).tunnel(false));
    let (mut peer, _) = gateway.registered().await;
    peer.hear("heartbeat").await;
    agent.stop.cancel();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(agent.is_running());
    status.load = Some(ReportedLoad { active: 0, queued: 0 });
    engine.set_status(Some(status));
    let begun = Instant::now();
    agent.returned().await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(peer.ended().await);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_does_not_close_holds_nothing_up_for_long() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let agent = run(agent(&network, &["gw"], &Engine::idle(), 8));
    // A gateway that registers the runner and then never reads again.
    let stream = gateway.dialled().await;
    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
    use futures_util::{SinkExt, StreamExt};
    socket.next().await.unwrap().unwrap();
    let ack = json!({"type": "register_ack", "runner_id": "gpu-1"}).to_string();
    socket.send(tokio_tungstenite::tungstenite::Message::text(ack)).await.unwrap();
    socket.next().await.unwrap().unwrap();
    let begun = Instant::now();
    agent.stop.cancel();
    agent.returned().await;
    assert!(begun.elapsed() <= Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_killed_agent_leaves_nothing_behind() {
    let network = Network::default();
    let mut gateway = network.gateway("gw");
    let (_feeder, engine) = open_engine();
    let agent = run(agent(&network, &["gw"], &engine, 8));
    let (mut peer, _) = gateway.registered().await;
    let tunnel = peer.tunnel().await;
    let _answer = tunnel.request("/").await;
    let asked = engine.asked();
    agent.kill();
    assert!(!peer.ended().await, "a killed agent says goodbye");
    engine.mock.until(|counts| counts.aborted == 1).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(engine.asked() <= asked + 1, "the poller lives on");
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_engines_link_is_not_swallowed() {
    use gateway_core::{
        Command, CommandReply, LinkDescription, LinkError, LinkRequest, LinkResponse, RunnerLink,
    };
    struct Panics;
    #[async_trait::async_trait]
    impl RunnerLink for Panics {
        fn describe(&self) -> LinkDescription {
            LinkDescription { transport: "panics", address: None }
        }
        async fn send(&self, _: LinkRequest) -> Result<LinkResponse, LinkError> {
            Err(LinkError::not_sent("never"))
        }
        async fn command(&self, _: Command) -> Result<CommandReply, LinkError> {
            panic!("the engine's link has a bug");
        }
    }
    let network = Network::default();
    let agent = agent(&network, &["gw"], &Engine::idle(), 8).engine(std::sync::Arc::new(Panics));
    let stop = gateway_core::CancellationToken::new();
    let ended = tokio::spawn(agent.build().unwrap().run(stop)).await;
    assert!(ended.unwrap_err().is_panic());
}
