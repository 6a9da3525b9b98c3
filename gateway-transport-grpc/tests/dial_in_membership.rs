//! A registered runner: what it says changes the fleet, and its call is its membership.

mod dial_in_support;

use std::time::Duration;

use dial_in_support::client::{Client, Say, Told, status};
use dial_in_support::{Gateway, post, soon};
use gateway_core::{FleetEvent, Health, LeaveReason, Registry};
use gateway_transport_grpc::dial_in::GrpcDialIn;
use gateway_transport_grpc::proto::runner_gateway::{Load, RunnerFrame};
use tokio::time::Instant;
use tonic::Code;

async fn tell(client: &Client, models: &[&str]) {
    client.say(Say::Status(status(models))).await;
}

#[tokio::test(start_paused = true)]
async fn a_status_changes_the_fleet_at_once() {
    let gateway = Gateway::default().await;
    let client = gateway.join("r1").await;
    let mut news = status(&["b"]);
    news.health = 2;
    news.load = Some(Load { active: 3, queued: 2 });
    news.models[0].local_name = "b:7b".to_owned();
    client.say(Say::Heartbeat(news)).await;
    soon(gateway.until(|fleet| fleet.model("b").is_some())).await;
    let runner = gateway.runner("r1").unwrap();
    assert_eq!((runner.status().health, runner.load().foreign), (Health::Degraded, Some(5)));
    assert_eq!(runner.model("b").unwrap().local_name().as_str(), "b:7b");
    assert!(runner.model("a").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_silent_runner_is_taken_out() {
    let gateway = Gateway::default().await;
    let mut events = gateway.registry.events();
    let mut client = gateway.join("r1").await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    tell(&client, &["b"]).await;
    soon(gateway.until(|fleet| fleet.model("b").is_some())).await;
    let heard = Instant::now();
    let left = loop {
        match events.next().await.unwrap() {
            FleetEvent::Left(key, reason) => break (key.id.to_string(), reason),
            _ => assert!(heard.elapsed() < Duration::from_secs(100)),
        }
    };
    assert_eq!(left, ("r1".to_owned(), LeaveReason::HeartbeatTimeout));
    assert_eq!(heard.elapsed().as_secs(), 90);
    assert_eq!(client.end().await, (Some("TIMEOUT".to_owned()), Code::DeadlineExceeded));
}

#[tokio::test(start_paused = true)]
async fn the_gateway_pings() {
    let runners = GrpcDialIn::builder().auth_token("secret").ping_interval(Duration::from_secs(7));
    let gateway = Gateway::start(runners.build()).await;
    let mut client = gateway.join("r1").await;
    let began = Instant::now();
    for nth in 1..=3 {
        let Told::Ping(ping) = client.told().await.unwrap() else { panic!("no ping") };
        assert!(ping.timestamp > 1_600_000_000);
        assert_eq!(began.elapsed().as_secs(), 7 * nth);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_is_a_runner_that_leaves() {
    let gateway = Gateway::default().await;
    let mut events = gateway.registry.events();
    let cut = gateway.join("r1").await;
    gateway.joined("r1").await;
    drop(cut);
    soon(gateway.until(|fleet| fleet.runner("r1").is_none())).await;
    let mut finished = gateway.join("r2").await;
    gateway.joined("r2").await;
    finished.finish();
    assert_eq!(finished.end().await, (None, Code::Ok));
    soon(gateway.until(|fleet| fleet.runner("r2").is_none())).await;
    let mut reasons = Vec::new();
    while reasons.len() < 2 {
        if let FleetEvent::Left(_, reason) = events.next().await.unwrap() {
            reasons.push(reason);
        }
    }
    assert_eq!(reasons, [LeaveReason::Disconnected; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_newer_call_replaces_and_the_older_one_takes_nothing_with_it() {
    let gateway = Gateway::default().await;
    let mut events = gateway.registry.events();
    let mut old = gateway.join("r1").await;
    gateway.joined("r1").await;
    let new = gateway.join("r1").await;
    soon(gateway.until(|fleet| fleet.runner("r1").is_some_and(|runner| runner.key().generation.0 == 2)))
        .await;
    // What the old call still says is not heard.
    tell(&old, &["ghost"]).await;
    assert_eq!(old.end().await, (Some("REPLACED".to_owned()), Code::Aborted));
    drop(old);
    tell(&new, &["b"]).await;
    soon(gateway.until(|fleet| fleet.model("b").is_some())).await;
    assert_eq!(gateway.runner("r1").unwrap().key().generation.0, 2);
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
        clients.push(gateway.join("r1").await);
        if round % 3 == 0 {
            // Gone at the same moment as the next one comes.
            clients.remove(0);
        }
    }
    let last = clients.pop().unwrap();
    tell(&last, &["last"]).await;
    soon(gateway.until(|fleet| fleet.model("last").is_some())).await;
    drop(clients);
    tell(&last, &["still"]).await;
    soon(gateway.until(|fleet| fleet.model("still").is_some())).await;
    assert_eq!(gateway.registry.fleet().runners().len(), 1);
    drop(last);
    soon(gateway.until(|fleet| fleet.runners().is_empty())).await;
}

#[tokio::test(start_paused = true)]
async fn a_replaced_call_finishes_what_it_has() {
    let gateway = Gateway::default().await;
    let mut old = gateway.join("r1").await;
    let runner = gateway.joined("r1").await;
    let reservation = runner.try_reserve().unwrap();
    let link = runner.link().clone();
    let asked = tokio::spawn(async move { link.send(post("{}")).await });
    let Told::RequestHead(head) = old.next().await else { panic!("no request") };
    let _new = gateway.join("r1").await;
    loop {
        if let Told::Error(error) = old.next().await {
            assert_eq!(error.code, "REPLACED");
            break;
        }
    }
    old.answer(head.stream_id).await;
    old.data(head.stream_id, "done").await;
    old.done(head.stream_id).await;
    let answer = soon(asked).await.unwrap().unwrap();
    assert_eq!(gateway_testkit::text(answer).await.unwrap(), "done");
    drop(reservation);
    assert_eq!(old.end().await.1, Code::Aborted);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_closed_ends_its_call() {
    let gateway = Gateway::default().await;
    let mut client = gateway.join("r1").await;
    let runner = gateway.joined("r1").await;
    runner.link().close();
    assert_eq!(client.end().await, (None, Code::Unavailable));
    soon(gateway.until(|fleet| fleet.runner("r1").is_none())).await;
    let refused = runner.link().send(post("{}")).await.unwrap_err();
    assert!(refused.is_not_sent(), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_source_is_told_as_shutdown() {
    let gateway = Gateway::default().await;
    let mut events = gateway.registry.events();
    let mut client = gateway.join("r1").await;
    gateway.joined("r1").await;
    let began = Instant::now();
    soon(gateway.stop()).await;
    assert!(began.elapsed() <= Duration::from_secs(5));
    assert_eq!(client.end().await, (None, Code::Unavailable));
    loop {
        if let FleetEvent::Left(_, reason) = events.next().await.unwrap() {
            assert_eq!(reason, LeaveReason::Shutdown);
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn frames_of_kinds_that_are_not_known_are_skipped() {
    let gateway = Gateway::default().await;
    // The same message with nothing of it understood is what a newer runner's frame looks like.
    let client = gateway.join("r1").await;
    client.say_raw(RunnerFrame::default()).await;
    tell(&client, &["b"]).await;
    soon(gateway.until(|fleet| fleet.model("b").is_some())).await;
}
