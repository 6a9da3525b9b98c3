//! How a runner comes in, and why it does not.

mod support;

use std::time::Duration;

use futures_util::SinkExt;
use gateway_core::Door;
use gateway_transport_ws::WsRunners;
use serde_json::{Value, json};
use support::{Client, Gateway, register, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

/// The error that the gateway sends, after which it closes.
async fn refused(mut client: Client) -> (String, String) {
    let error = soon(client.recv()).await.expect("an error, not just an end");
    assert_eq!(error["type"], "error");
    assert_eq!(soon(client.recv()).await, None, "the connection ends after the error");
    let text = |field: &str| error[field].as_str().unwrap().to_owned();
    (text("code"), text("message"))
}

async fn refused_with(gateway: &Gateway, message: Value) -> (String, String) {
    let mut client = gateway.dial().await;
    client.send(message).await;
    refused(client).await
}

fn with(field: &str, value: Value) -> Value {
    let mut message = register("r1");
    message[field] = value;
    message
}

fn pair(code: &str, message: &str) -> (String, String) {
    (code.to_owned(), message.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_shipped_runner_comes_in() {
    let gateway = Gateway::default().await;
    let mut client = gateway.dial().await;
    client.send(register("r1")).await;
    assert_eq!(client.recv().await.unwrap(), json!({"type": "register_ack", "runner_id": "r1"}));
    gateway.until(|fleet| fleet.runner("r1").is_some()).await;
    let runner = gateway.runner("r1").unwrap();
    assert_eq!(runner.spec().name, "A runner");
    assert_eq!(runner.spec().machine.description.as_deref(), Some("gpu-server"));
    assert_eq!(runner.spec().slots, None);
    assert!(runner.model("a").is_some());
    let description = runner.link().describe();
    assert_eq!(
        (description.transport, description.address.as_deref()),
        ("dial-back", Some("http://127.0.0.1:9000"))
    );
}

#[tokio::test(start_paused = true)]
async fn the_extensions_of_register_are_understood() {
    let gateway = Gateway::start(WsRunners::builder().auth_token("secret").max_streams(16).build()).await;
    let mut message = register("r1");
    message["labels"] = json!({"zone": "eu"});
    message["tunnel"] = json!({"version": 1, "max_streams": 64});
    let mut client = gateway.dial().await;
    client.send(message).await;
    let ack = client.recv().await.unwrap();
    assert_eq!(ack["tunnel"], json!({"version": 1, "max_streams": 16}), "no more than is allowed here");
    gateway.until(|fleet| fleet.runner("r1").is_some()).await;
    let runner = gateway.runner("r1").unwrap();
    assert_eq!(runner.spec().labels["zone"], "eu");
    assert_eq!(runner.spec().slots, None, "what it does not say stays unknown");
    assert_eq!(runner.link().describe().transport, "tunnel");
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_of_another_version_is_not_granted() {
    let gateway = Gateway::default().await;
    let mut client = gateway.dial().await;
    client.send(with("tunnel", json!({"version": 2, "max_streams": 64}))).await;
    assert_eq!(client.recv().await.unwrap().get("tunnel"), None);
}

#[tokio::test(start_paused = true)]
async fn the_checks_have_an_order() {
    let gateway = Gateway::default().await;
    let mut message = register("");
    message["auth_token"] = "wrong".into();
    message["protocol_version"] = 2.into();
    let invalid = pair("AUTH_FAILED", "Invalid auth token");
    assert_eq!(refused_with(&gateway, message.clone()).await, invalid, "the token first");
    message["auth_token"] = "secret".into();
    let mismatch = pair("AUTH_FAILED", "Protocol version mismatch: expected 1, got 2");
    assert_eq!(refused_with(&gateway, message.clone()).await, mismatch, "then the version");
    message["protocol_version"] = 1.into();
    let empty = pair("AUTH_FAILED", "Runner ID cannot be empty");
    assert_eq!(refused_with(&gateway, message).await, empty, "then the id");
    assert!(gateway.registry.fleet().runners().is_empty());
}

use gateway_core::Registry;

#[tokio::test(start_paused = true)]
async fn the_first_frame_must_be_a_registration() {
    let gateway = Gateway::default().await;
    let heartbeat = support::heartbeat("heartbeat", support::status(&[]));
    let expected = pair("PROTOCOL_ERROR", "Expected Register message");
    assert_eq!(refused_with(&gateway, heartbeat).await, expected);

    let mut client = gateway.dial().await;
    client.socket.send(Message::binary(&b"x"[..])).await.unwrap();
    assert_eq!(refused(client).await, pair("PROTOCOL_ERROR", "Expected text message"));

    let mut client = gateway.dial().await;
    client.socket.send(Message::text(r#"{"type":"register","auth_token":"secret""#)).await.unwrap();
    let (code, message) = refused(client).await;
    assert_eq!(code, "PARSE_ERROR");
    assert!(!message.contains("secret"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_sent_away_after_the_timeout() {
    let gateway = Gateway::default().await;
    let client = gateway.dial().await;
    let began = Instant::now();
    assert_eq!(refused(client).await, pair("TIMEOUT", "Registration timeout"));
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(13), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn tokens_of_their_own() {
    let runners = WsRunners::builder().auth_token("secret").runner_token("r1", "mine").build();
    let gateway = Gateway::start(runners).await;
    assert_eq!(refused_with(&gateway, register("r1")).await, pair("AUTH_FAILED", "Invalid auth token"));
    gateway.join(with("auth_token", "mine".into())).await;
    gateway.join(register("r2")).await;
}

#[tokio::test(start_paused = true)]
async fn anonymous_runners_come_in_only_if_that_is_said() {
    let gateway = Gateway::start(WsRunners::builder().allow_anonymous().build()).await;
    gateway.join(with("auth_token", Value::Null)).await;
}

#[tokio::test(start_paused = true)]
async fn without_its_address_a_runner_cannot_be_dialled_back() {
    let mut gateway = Gateway::default().await;
    gateway.peer = None;
    let (code, message) = refused_with(&gateway, register("r1")).await;
    assert_eq!(code, "PROTOCOL_ERROR");
    assert!(message.contains("tunnel"), "{message}");
    // With the tunnel nothing needs to be known.
    gateway.join(with("tunnel", json!({"version": 1, "max_streams": 1}))).await;
}

/// Sends a request as text and gives the head of the answer.
async fn raw(gateway: &Gateway, request: &str) -> String {
    let mut stream = gateway.connect();
    stream.write_all(request.replace('\n', "\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
    }
    String::from_utf8_lossy(&answer).to_lowercase()
}

const HANDSHAKE: &str = "GET /ws/runners HTTP/1.1\nHost: g\nConnection: Upgrade\nUpgrade: websocket\n\
    Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n";

#[tokio::test(start_paused = true)]
async fn the_handshake_is_checked() {
    let gateway = Gateway::default().await;
    let answer = raw(&gateway, HANDSHAKE).await;
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    // The example of RFC 6455.
    assert!(answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{answer}");
    let answer = raw(&gateway, "GET /ws/runners HTTP/1.1\nHost: g\n\n").await;
    assert!(answer.starts_with("http/1.1 426 ") && answer.contains("upgrade: websocket"), "{answer}");
    let answer = raw(&gateway, &HANDSHAKE.replace("GET", "POST")).await;
    assert!(answer.starts_with("http/1.1 426 "), "{answer}");
    let answer = raw(&gateway, &HANDSHAKE.replace("n: 13", "n: 8")).await;
    assert!(answer.starts_with("http/1.1 426 ") && answer.contains("sec-websocket-version: 13"), "{answer}");
    let answer = raw(&gateway, &HANDSHAKE.replace("dGhl", "x")).await;
    assert!(answer.starts_with("http/1.1 400 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn there_is_room_for_so_many() {
    let runners = WsRunners::builder().auth_token("secret").max_runners(3).max_unregistered(1).build();
    let gateway = Gateway::start(runners).await;
    let newcomer = gateway.dial().await;
    let answer = raw(&gateway, HANDSHAKE).await;
    assert!(answer.starts_with("http/1.1 503 ") && answer.contains("retry-after"), "{answer}");
    drop(newcomer);
    let mut runners = Vec::new();
    for id in ["r1", "r2", "r3"] {
        // The place of one who went is free when the door has seen it go.
        loop {
            tokio::task::yield_now().await;
            if gateway.acceptor_has_room().await {
                break;
            }
        }
        runners.push(gateway.join(register(id)).await);
    }
    let answer = raw(&gateway, HANDSHAKE).await;
    assert!(answer.starts_with("http/1.1 503 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn nobody_comes_in_before_the_source_runs_or_after_it() {
    let runners = WsRunners::builder().auth_token("secret").path("/in").build();
    let acceptor = runners.acceptor();
    assert_eq!(acceptor.path(), "/in");
    let gateway = Gateway::start(runners).await;
    let mut client = gateway.join(register("r1")).await;
    let (registry, peer) = (gateway.registry.clone(), gateway.peer);
    soon(gateway.stop()).await;
    assert!(registry.fleet().runners().is_empty(), "the source takes its runners out");
    assert_eq!(soon(client.recv()).await, None);
    let closed = Gateway::closed(acceptor, registry, peer);
    assert!(raw(&closed, HANDSHAKE).await.starts_with("http/1.1 503 "));
}
