//! A registered runner: what it says changes the fleet, and its connection is its membership.

mod support;

use std::time::Duration;

use gateway_core::{FleetEvent, Health, LeaveReason, ModelState, Registry};
use gateway_transport_ws::WsRunners;
use serde_json::json;
use support::{Gateway, heartbeat, register, soon, status};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test(start_paused = true)]
async fn a_status_update_changes_the_fleet_at_once() {
    let gateway = Gateway::default().await;
    let mut client = gateway.join(register("r1")).await;
    let mut news = status(&["b:7b"]);
    news["model_aliases"] = json!({"b": "b:7b"});
    news["health"] = "degraded".into();
    news["load"] = json!({"active": 3, "queued": 2});
    news["engines"][0]["available_models"] =
        json!([{"id": "c", "name": "c", "on_demand": true}, {"id": "d"}]);
    client.send(heartbeat("status_update", news)).await;
    gateway.until(|fleet| fleet.model("b").is_some()).await;
    let runner = gateway.runner("r1").unwrap();
    assert_eq!(runner.status().health, Health::Degraded);
    assert_eq!(runner.load().foreign, Some(5));
    let state = |name: &str| runner.model(name).map(|model| model.state.clone());
    assert_eq!(state("a"), None);
    assert_eq!(state("b"), Some(ModelState::Loaded));
    assert_eq!(runner.model("b").unwrap().local_name().as_str(), "b:7b");
    assert_eq!(state("c"), Some(ModelState::OnDemand));
    assert_eq!(state("d"), Some(ModelState::Available));
}

#[tokio::test(start_paused = true)]
async fn zero_requests_mean_something_only_from_a_runner_that_counts() {
    let gateway = Gateway::default().await;
    let mut client = gateway.join(register("r1")).await;
    let counting = |active: u32, model: &str| {
        let mut news = status(&[model]);
        news["capabilities"] = json!([{"capability": "fast_chat", "status": {"status": "loaded"},
                                       "model_id": model, "active_requests": active}]);
        heartbeat("heartbeat", news)
    };
    for (active, model, expected) in [(0, "b", None), (4, "c", Some(4)), (0, "d", Some(0))] {
        client.send(counting(active, model)).await;
        gateway.until(|fleet| fleet.model(model).is_some()).await;
        assert_eq!(gateway.runner("r1").unwrap().load().foreign, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_not_understood_is_not_fatal() {
    use futures_util::SinkExt;
    let gateway = Gateway::default().await;
    let mut client = gateway.join(register("r1")).await;
    for text in ["{", "[]", r#"{"type":"news"}"#, r#"{"type":"heartbeat"}"#, &register("r2").to_string()] {
        client.socket.send(Message::text(text)).await.unwrap();
    }
    // No tunnel was granted: its frames are dropped.
    client.socket.send(Message::binary(vec![0; 300_000])).await.unwrap();
    client.send(heartbeat("heartbeat", status(&["b"]))).await;
    gateway.until(|fleet| fleet.model("b").is_some()).await;
    assert_eq!(gateway.registry.fleet().runners().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_runner_is_taken_out() {
    let gateway = Gateway::default().await;
    let mut events = gateway.registry.events();
    let mut client = gateway.join(register("r1")).await;
    // Anything that it says counts, understood or not.
    tokio::time::sleep(Duration::from_secs(60)).await;
    client.send(json!({"type": "news"})).await;
    let heard = Instant::now();
    let left = loop {
        match events.next().await.unwrap() {
            FleetEvent::Left(key, reason) => break (key.id.to_string(), reason),
            _ => assert!(heard.elapsed() < Duration::from_secs(100)),
        }
    };
    assert_eq!(left, ("r1".to_owned(), LeaveReason::HeartbeatTimeout));
    assert_eq!(heard.elapsed().as_secs(), 90);
    // Its pings came; then the connection was cut.
    while client.recv().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn the_gateway_pings() {
    let runners = WsRunners::builder().auth_token("secret").ping_interval(Duration::from_secs(7));
    let gateway = Gateway::start(runners.build()).await;
    let mut client = gateway.join(register("r1")).await;
    let began = Instant::now();
    for nth in 1..=3 {
        assert!(client.recv_type("ping").await["timestamp"].as_i64().unwrap() > 1_600_000_000);
        assert_eq!(began.elapsed().as_secs(), 7 * nth);
    }
}

#[tokio::test(start_paused = true)]
async fn who_speaks_is_not_asked_whether_it_is_there() {
    let runners = WsRunners::builder().auth_token("secret").ping_interval(Duration::from_secs(7));
    let gateway = Gateway::start(runners.build()).await;
    let mut client = gateway.join(register("r1")).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(6)).await;
        client.send(json!({"type": "news"})).await;
    }
    let spoke = Instant::now();
    // The first that comes is for the silence after the last word.
    client.recv_type("ping").await;
    assert_eq!(spoke.elapsed().as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn words_that_come_again_count_again() {
    let gateway = Gateway::default().await;
    let mut client = gateway.join(register("r1")).await;
    let beat = |active: u32, model: &str| {
        let mut message = heartbeat("heartbeat", status(&[model]));
        message["load"] = json!({"active": active, "queued": 0});
        message
    };
    let update = heartbeat("status_update", status(&["b"]));
    for _ in 0..3 {
        client.send(beat(3, "a")).await;
        gateway.until(|fleet| fleet.model("a").is_some()).await;
        client.send(update.clone()).await;
        gateway.until(|fleet| fleet.model("a").is_none()).await;
    }
    client.send(beat(3, "a")).await;
    gateway.until(|fleet| fleet.model("a").is_some()).await;
    let load = || gateway.runner("r1").unwrap().load();
    assert_eq!(load().foreign, Some(3));
    // The same words make an old report new.
    tokio::time::sleep(Duration::from_secs(80)).await;
    assert!(load().report_age >= Some(Duration::from_secs(80)));
    client.send(beat(3, "a")).await;
    while load().report_age != Some(Duration::ZERO) {
        tokio::task::yield_now().await;
    }
    assert_eq!(load().foreign, Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_is_a_runner_that_leaves() {
    let gateway = Gateway::default().await;
    let mut events = gateway.registry.events();
    let cut = gateway.join(register("r1")).await;
    gateway.until(|fleet| fleet.runner("r1").is_some()).await;
    drop(cut);
    gateway.until(|fleet| fleet.runner("r1").is_none()).await;
    let mut closed = gateway.join(register("r2")).await;
    gateway.until(|fleet| fleet.runner("r2").is_some()).await;
    closed.socket.close(None).await.unwrap();
    gateway.until(|fleet| fleet.runner("r2").is_none()).await;
    let mut reasons = Vec::new();
    while reasons.len() < 2 {
        if let FleetEvent::Left(_, reason) = events.next().await.unwrap() {
            reasons.push(reason);
        }
    }
    assert_eq!(reasons, [LeaveReason::Disconnected; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_newer_connection_replaces_and_the_older_one_takes_nothing_with_it() {
    let gateway = Gateway::default().await;
    let mut events = gateway.registry.events();
    let mut old = gateway.join(register("r1")).await;
    gateway.until(|fleet| fleet.runner("r1").is_some()).await;
    let mut new = gateway.join(register("r1")).await;
    gateway.until(|fleet| fleet.runner("r1").is_some_and(|runner| runner.key().generation.0 == 2)).await;
    // What the old connection still says is not heard.
    old.send(heartbeat("status_update", status(&["ghost"]))).await;
    let error = old.recv_type("error").await;
    assert_eq!(error["code"], "REPLACED");
    assert_eq!(soon(old.recv()).await, None, "and it is closed");
    drop(old);
    new.send(heartbeat("status_update", status(&["b"]))).await;
    gateway.until(|fleet| fleet.model("b").is_some()).await;
    let runner = gateway.runner("r1").unwrap();
    assert_eq!(runner.key().generation.0, 2);
    assert!(gateway.registry.fleet().model("ghost").is_none());
    let mut left = Vec::new();
    loop {
        match events.next().await.unwrap() {
            FleetEvent::Left(key, reason) => left.push((key.generation.0, reason)),
            FleetEvent::Changed(_) => break,
            _ => {}
        }
    }
    assert_eq!(left, [(1, LeaveReason::Replaced)], "no second leave");
}

#[tokio::test(start_paused = true)]
async fn of_many_that_race_for_one_id_the_last_stays() {
    let gateway = Gateway::default().await;
    let mut clients = Vec::new();
    for round in 0..40 {
        clients.push(gateway.join(register("r1")).await);
        if round % 3 == 0 {
            // Gone at the same moment as the next one comes.
            clients.remove(0);
        }
    }
    let last = clients.last_mut().unwrap();
    last.send(heartbeat("status_update", status(&["last"]))).await;
    gateway.until(|fleet| fleet.model("last").is_some()).await;
    let mut last = clients.pop().unwrap();
    drop(clients);
    last.send(heartbeat("status_update", status(&["still"]))).await;
    gateway.until(|fleet| fleet.model("still").is_some()).await;
    assert_eq!(gateway.registry.fleet().runners().len(), 1);
    drop(last);
    gateway.until(|fleet| fleet.runners().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_closed_ends_its_connection() {
    let gateway = Gateway::default().await;
    let mut client = gateway.join(register("r1")).await;
    gateway.until(|fleet| fleet.runner("r1").is_some()).await;
    let runner = gateway.runner("r1").unwrap();
    runner.link().close();
    assert_eq!(soon(client.recv()).await, None);
    gateway.until(|fleet| fleet.runner("r1").is_none()).await;
    let refused = runner.link().send(support::post("{}")).await.unwrap_err();
    assert!(refused.is_not_sent(), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_source_is_told_as_shutdown() {
    let gateway = Gateway::default().await;
    let mut events = gateway.registry.events();
    let _client = gateway.join(register("r1")).await;
    gateway.until(|fleet| fleet.runner("r1").is_some()).await;
    // The runner does not answer the close frame: it is not waited for any longer than said.
    let began = Instant::now();
    soon(gateway.stop()).await;
    assert!(began.elapsed() <= Duration::from_secs(5));
    loop {
        if let FleetEvent::Left(_, reason) = events.next().await.unwrap() {
            assert_eq!(reason, LeaveReason::Shutdown);
            break;
        }
    }
}
