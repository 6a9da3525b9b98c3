//! Ready means that some model can be served; the metadata tells what is true at the moment.

mod common;

use std::time::Duration;

use common::*;
use gateway_core::{
    Health, LeaveReason, Modalities, Modality, Model, ModelState, RunnerChange, RunnerId, RunnerSpec,
    RunnerStatus,
};
use gateway_http::Gateway;
use serde_json::json;

async fn ready(gateway: &Gateway) -> u16 {
    let answer = whole(gateway, get("/readyz")).await;
    let json = answer.json();
    if answer.status == 200 {
        assert_eq!(json, json!({"status": "ready", "checks": {"gateway": "ok", "runners": "ok"}}));
    } else {
        assert_eq!(json["status"], "not_ready");
        assert_eq!(answer.header("retry-after"), Some("30"));
    }
    answer.status
}

#[tokio::test]
async fn ready_follows_the_fleet() {
    let gateway = builder().build().unwrap();
    let dispatcher = gateway.dispatcher();
    let registry = dispatcher.registry();
    assert_eq!(ready(&gateway).await, 503);
    let key = join(&gateway, "r1", &[], &Mock::ok());
    assert_eq!(ready(&gateway).await, 503, "a runner without a model serves nobody");

    let available = vec![Model::new(model("m"), ModelState::Available)];
    let starting = RunnerStatus { health: Health::Starting, ..RunnerStatus::serving([model("m")]) };
    for (change, expected) in [
        (RunnerChange::Status(RunnerStatus { models: available, ..RunnerStatus::serving([]) }), 503),
        (RunnerChange::Status(RunnerStatus::serving([model("m")])), 200),
        (RunnerChange::Status(starting), 503),
        (RunnerChange::Status(RunnerStatus::serving([model("m")])), 200),
        (RunnerChange::Drain(true), 503),
        (RunnerChange::Drain(false), 200),
    ] {
        registry.update(&key, change.clone());
        assert_eq!(ready(&gateway).await, expected, "{change:?}");
    }
    registry.leave(&key, LeaveReason::Disconnected);
    assert_eq!(ready(&gateway).await, 503);
}

#[tokio::test]
async fn a_gateway_that_drains_is_alive_and_not_ready() {
    let gateway = with_runner(&Mock::ok());
    assert_eq!(ready(&gateway).await, 200);
    gateway.dispatcher().close();
    let checks = whole(&gateway, get("/readyz")).await.json()["checks"].clone();
    assert_eq!(checks, json!({"gateway": "draining", "runners": "ok"}));
    assert_eq!(ready(&gateway).await, 503);
    gateway.shutdown(Duration::ZERO).await;
    assert_eq!(whole(&gateway, get("/health")).await.status, 200);
}

#[tokio::test]
async fn the_metadata_is_true() {
    let gateway = builder().build().unwrap();
    let metadata = whole(&gateway, get("/v1/metadata")).await.json();
    assert_eq!(metadata["schema_version"], "v1");
    assert_eq!(metadata["backends"], json!({"default": null, "available": []}));
    assert_eq!(metadata["capabilities"]["max_concurrency"], 0);
    assert_eq!(metadata["capabilities"]["domains"], json!(["chat", "completion", "embedding"]));
    assert_eq!(metadata["capabilities"]["streaming"], true);

    let mut seeing = Model::loaded(model("m"));
    seeing.modalities = Some(Modalities::default().with(Modality::Text).with(Modality::Image));
    let status = RunnerStatus { models: vec![seeing], ..RunnerStatus::serving([]) };
    let spec = RunnerSpec::new(RunnerId::new("secret-host").unwrap());
    join_with(&gateway, spec.slots(4), status, &Mock::ok());
    let answer = whole(&gateway, get("/v1/metadata")).await;
    let metadata = answer.json();
    assert_eq!(metadata["backends"], json!({"default": "mock", "available": ["mock"]}));
    assert_eq!(metadata["capabilities"]["max_concurrency"], 4);
    assert_eq!(metadata["capabilities"]["modalities"], json!(["text", "image"]));
    let text = String::from_utf8_lossy(&answer.body);
    assert!(!text.contains("secret-host") && !text.contains("192.0.2.7"));

    // Of this one nobody knows how much it takes.
    join(&gateway, "r2", &["m"], &Mock::ok());
    let metadata = whole(&gateway, get("/v1/metadata")).await.json();
    assert_eq!(metadata["capabilities"]["max_concurrency"], json!(null));
}

#[tokio::test]
async fn every_route_that_the_metadata_lists_exists() {
    let gateway = builder().build().unwrap();
    let metadata = whole(&gateway, get("/v1/metadata")).await.json();
    let endpoints = metadata["endpoints"].as_array().unwrap();
    let ids: Vec<_> = endpoints.iter().map(|endpoint| endpoint["operation_id"].as_str().unwrap()).collect();
    for id in ["health.check", "readiness.check", "metadata.get", "chat.completions.create", "models.list"] {
        assert!(ids.contains(&id), "{id}");
    }
    for endpoint in endpoints {
        let path = endpoint["path"].as_str().unwrap().replace("{id}", "x");
        let method = endpoint["method"].as_str().unwrap();
        let request = http::Request::builder().method(method).uri(&path);
        let answer =
            send(&gateway, request.body(http_body_util::Full::<bytes::Bytes>::default()).unwrap()).await;
        assert!(!matches!(answer.status().as_u16(), 404 | 405), "{method} {path}");
    }
}
