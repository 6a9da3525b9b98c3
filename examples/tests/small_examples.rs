//! Every small example does what it says.
#![allow(clippy::duplicate_mod, reason = "each example brings all that it needs")]

#[path = "../custom_balancer.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod custom_balancer;
#[path = "../custom_inventory.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod custom_inventory;
#[path = "../custom_link.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod custom_link;
#[path = "../custom_registry.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod custom_registry;
#[path = "../custom_router.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod custom_router;
#[path = "../embed_axum.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod embed_axum;
#[path = "../embed_grpc.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod embed_grpc;
#[path = "../embed_hyper.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod embed_hyper;

use std::sync::Arc;

use async_trait::async_trait;
use custom_link::FunctionLink;
use gateway_testkit::MockEngine;
use gateway_testkit::conformance::{self, Connected, Subject};

fn has(line: &str, status: &str, text: &str) {
    assert!(line.starts_with(status) && line.contains(text), "wanted {status} and `{text}`, got: {line}");
}

#[tokio::test]
async fn the_balancer_prefers_its_zone_and_spills_over() {
    let seen = custom_balancer::run().await.unwrap();
    has(&seen[0], "200", "hello from near");
    has(&seen[1], "200", "hello from far");
}

#[tokio::test]
async fn the_inventory_tells_who_comes_and_goes() {
    let seen = custom_inventory::run().await.unwrap();
    has(&seen[0], "200", "hello from http");
    has(&seen[1], "404", "error");
}

#[tokio::test]
async fn the_router_passes_over_a_runner_in_maintenance() {
    let seen = custom_router::run().await.unwrap();
    has(&seen[0], "200", "hello from working");
    has(&seen[1], "503", "error");
}

#[tokio::test]
async fn the_registry_writes_its_journal() {
    let seen = custom_registry::run().await.unwrap();
    has(&seen[0], "200", "hello from one");
    assert_eq!(seen[1..], ["one#1 came (mock)", "one#1 went (disconnected)"]);
}

#[tokio::test]
async fn the_link_serves() {
    let seen = custom_link::run().await.unwrap();
    let body = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    has(&seen[0], "200", &format!("{} bytes", body.len()));
}

struct ThroughAFunction;

#[async_trait]
impl Subject for ThroughAFunction {
    async fn connect(&self, engine: MockEngine) -> Connected {
        let runner = engine.link();
        let function = move |request| {
            let runner = runner.clone();
            async move { runner.send(request).await }
        };
        Connected::new(Arc::new(FunctionLink(function)), ())
    }

    fn has_connections(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn the_link_passes_the_conformance_suite() {
    conformance::run(&ThroughAFunction).await;
}

#[tokio::test]
async fn axum_serves_its_own_routes_and_the_gateway_the_rest() {
    let seen = embed_axum::run().await.unwrap();
    has(&seen[0], "200", "the application's own page");
    has(&seen[1], "200", "hello from http");
}

#[tokio::test]
async fn hyper_serves_the_gateway() {
    let seen = embed_hyper::run().await.unwrap();
    has(&seen[0], "200", "hello from http");
}

#[tokio::test]
async fn one_gateway_dials_another_over_grpc() {
    let seen = embed_grpc::run().await.unwrap();
    has(&seen[0], "200", "hello from afar");
}
