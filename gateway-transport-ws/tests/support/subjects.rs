//! Links through the door, for the suites of the test kit.

use std::sync::Arc;

use async_trait::async_trait;
use gateway_testkit::MockEngine;
use gateway_testkit::conformance::{Connected, Subject};

use super::{Gateway, TunnelRunner, register};

/// Through the tunnel, to an engine in the runner's own process.
pub struct Tunnel;

#[async_trait]
impl Subject for Tunnel {
    async fn connect(&self, engine: MockEngine) -> Connected {
        let gateway = Gateway::default().await;
        let runner = TunnelRunner::start(&gateway, "r1", 256, engine.link()).await;
        let link = gateway.runner("r1").unwrap().link().clone();
        Connected::new(link, (gateway, runner))
    }

    fn buffered_at_most(&self) -> u64 {
        // A stream's window here, as much in the runner's stream, and what stands on the way.
        512 * 1024
    }
}

/// Through the tunnel, to a runner that is a proxy before an HTTP engine.
pub struct TunnelAndHttp;

#[async_trait]
impl Subject for TunnelAndHttp {
    async fn connect(&self, engine: MockEngine) -> Connected {
        let server = engine.serve_http().await.unwrap();
        let http = gateway_transport_http::HttpLink::new(server.url()).unwrap();
        let gateway = Gateway::default().await;
        let runner = TunnelRunner::start(&gateway, "r1", 256, Arc::new(http)).await;
        let link = gateway.runner("r1").unwrap().link().clone();
        Connected::new(link, (gateway, runner, server))
    }
}

/// Dialled back.
pub struct DialBack;

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
