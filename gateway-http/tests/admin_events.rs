//! The event stream for admins: what happens, in order, as long as somebody reads.

mod common;

use std::time::Duration;

use common::*;
use gateway_core::{CommandReply, FleetEvents, LeaveReason, RunnerChange, RunnerStatus};
use gateway_http::{Gateway, GatewayBody};
use http::Response;
use serde_json::{Value, json};

async fn watch(gateway: &Gateway) -> Response<GatewayBody> {
    send(gateway, as_admin(get("/admin/runners/events"))).await
}

async fn next(body: &mut GatewayBody) -> (String, Value) {
    let frame = next_chunk(body).await.expect("an event");
    let text = String::from_utf8(frame.to_vec()).unwrap();
    let (name, data) = text.trim_end().split_once("\ndata: ").expect("a name and data");
    (name.strip_prefix("event: ").unwrap().to_owned(), serde_json::from_str(data).unwrap())
}

#[tokio::test]
async fn all_kinds_of_events_come_in_order() {
    let link = Mock::ok();
    let gateway = builder().build().unwrap();
    let response = watch(&gateway).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-cache");
    let mut body = response.into_body();
    let dispatcher = gateway.dispatcher();
    let registry = dispatcher.registry();

    let key = join(&gateway, "r1", &["m"], &link);
    let (name, data) = next(&mut body).await;
    assert_eq!(name, "runner_connected");
    assert_eq!(
        data,
        json!({
            "type": "connected", "runner_id": "r1", "name": "r1", "machine_type": null, "health": "healthy",
            "loaded_models": ["m"], "available_models": ["m"],
        })
    );

    registry.update(&key, RunnerChange::Status(RunnerStatus::serving([model("n")])));
    let (name, data) = next(&mut body).await;
    assert_eq!((&*name, &data["type"]), ("runner_status_changed", &json!("status_changed")));
    assert_eq!(data["loaded_models"], json!(["n"]));

    link.replies
        .lock()
        .unwrap()
        .push_back(Ok(CommandReply { result: Err("line\nbreak".into()), status: None }));
    let mut load = as_admin(post("/admin/runners/r1/load-model", r#"{"model_id":"x"}"#));
    load.headers_mut().insert("x-request-id", "cmd-1".parse().unwrap());
    whole(&gateway, load).await;
    let (name, data) = next(&mut body).await;
    assert_eq!(name, "runner_command_completed");
    assert_eq!(
        data,
        json!({
            "type": "command_completed", "runner_id": "r1", "request_id": "cmd-1", "command": "load_model",
            "model_id": "x", "success": false, "error": "line\nbreak",
        })
    );

    registry.leave(&key, LeaveReason::HeartbeatTimeout);
    let (name, data) = next(&mut body).await;
    let left = json!({"type": "disconnected", "runner_id": "r1", "reason": "heartbeat_timeout"});
    assert_eq!((&*name, data), ("runner_disconnected", left));
}

#[tokio::test(start_paused = true)]
async fn silence_is_filled_every_fifteen_seconds() {
    let gateway = builder().build().unwrap();
    let mut body = watch(&gateway).await.into_body();
    let before = tokio::time::Instant::now();
    for passed in [15, 30] {
        assert_eq!(next_chunk(&mut body).await.unwrap(), ": keep-alive\n\n");
        assert_eq!(before.elapsed(), Duration::from_secs(passed));
    }
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_so() {
    let gateway = builder().build().unwrap();
    let mut body = watch(&gateway).await.into_body();
    let dispatcher = gateway.dispatcher();
    let registry = dispatcher.registry();
    let key = join(&gateway, "r1", &["m"], &Mock::ok());
    for at in 0..FleetEvents::CAPACITY {
        registry.update(&key, RunnerChange::Drain(at % 2 == 0));
    }
    let (name, data) = next(&mut body).await;
    assert_eq!((&*name, data), ("runner_events_missed", json!({"type": "events_missed", "count": 1})));
    assert_eq!(next(&mut body).await.0, "runner_status_changed");
}

#[tokio::test]
async fn readers_are_bounded_and_their_places_come_back() {
    let gateway = builder().build().unwrap();
    let mut readers = Vec::new();
    loop {
        let response = watch(&gateway).await;
        if response.status() == 429 {
            break;
        }
        readers.push(response);
        assert!(readers.len() <= 64);
    }
    assert_eq!(readers.len(), 64);
    readers.pop();
    assert_eq!(watch(&gateway).await.status(), 200);
}

#[tokio::test]
async fn a_shutdown_ends_the_stream_and_so_does_dropping_the_gateway() {
    let gateway = builder().build().unwrap();
    let mut body = watch(&gateway).await.into_body();
    gateway.shutdown(Duration::ZERO).await;
    assert!(next_chunk(&mut body).await.is_none());

    let gateway = builder().build().unwrap();
    let mut body = watch(&gateway).await.into_body();
    drop(gateway);
    assert!(next_chunk(&mut body).await.is_none());
}
