//! The storm through tunnels that are cut and dialled again, and through dial-back.

mod support;

use std::time::Duration;

use async_trait::async_trait;
use gateway_testkit::MockEngine;
use gateway_testkit::conformance::{Connected, Subject};
use gateway_testkit::storm::{self, Storm};
use support::{Gateway, TunnelRunner, register};

struct Tunnel;

#[async_trait]
impl Subject for Tunnel {
    async fn connect(&self, engine: MockEngine) -> Connected {
        let gateway = Gateway::default().await;
        let runner = TunnelRunner::start(&gateway, "r1", 256, engine.link()).await;
        let link = gateway.runner("r1").unwrap().link().clone();
        Connected::new(link, (gateway, runner))
    }
}

struct DialBack;

#[async_trait]
impl Subject for DialBack {
    async fn connect(&self, engine: MockEngine) -> Connected {
        let server = engine.serve_http().await.unwrap();
        let gateway = Gateway::default().await;
        let mut message = register("r1");
        message["http_port"] = server.address().port().into();
        let client = gateway.join(message).await;
        gateway.until(|fleet| fleet.runner("r1").is_some()).await;
        let link = gateway.runner("r1").unwrap().link().clone();
        Connected::new(link, (gateway, client, server))
    }
}

async fn blow(subject: &dyn Subject) {
    let storm = Storm { at_once: 100, patience: Duration::from_secs(1), ..Storm::default() };
    let report = storm::run(subject, storm).await;
    println!("{report:?}");
    assert!(report.answered > 5_000 && report.cancelled > 1_000 && report.flaps > 10, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_tunnels() {
    blow(&Tunnel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_dial_back() {
    blow(&DialBack).await;
}
