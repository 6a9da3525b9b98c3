//! Links through the service, for the suites of the test kit. The runner's side is the agent.

use std::sync::Arc;

use async_trait::async_trait;
use gateway_core::RunnerLink;
use gateway_testkit::MockEngine;
use gateway_testkit::conformance::{Connected, Subject};

use super::{Gateway, Hosted, Network, Running, agent, run};

async fn connected(engine: Arc<dyn RunnerLink>) -> (Arc<dyn RunnerLink>, (Gateway, Hosted, Running)) {
    let gateway = Gateway::default().await;
    let network = Network::default();
    let hosted = network.host("gw", &gateway);
    let running = run(agent(&network, &["gw"], engine, 0));
    let link = gateway.joined("gpu-1").await.link().clone();
    (link, (gateway, hosted, running))
}

/// To an engine in the runner's own process.
pub struct DialIn;

#[async_trait]
impl Subject for DialIn {
    async fn connect(&self, engine: MockEngine) -> Connected {
        let (link, keep) = connected(engine.link()).await;
        Connected::new(link, keep)
    }

    fn buffered_at_most(&self) -> u64 {
        // A stream's window, what the agent has queued of it, and what stands on the way.
        512 * 1024
    }
}

/// To a runner that is a proxy before an HTTP engine.
pub struct DialInAndHttp;

#[async_trait]
impl Subject for DialInAndHttp {
    async fn connect(&self, engine: MockEngine) -> Connected {
        let server = engine.serve_http().await.unwrap();
        let http = gateway_transport_http::HttpLink::new(server.url()).unwrap();
        let (link, keep) = connected(Arc::new(http)).await;
        Connected::new(link, (keep, server))
    }
}
