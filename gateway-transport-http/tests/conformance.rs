//! The HTTP link against the suite that every link must pass, and through the storm.

use std::sync::Arc;
use std::time::Duration;

use gateway_testkit::MockEngine;
use gateway_testkit::conformance::{self, Connected, Subject};
use gateway_testkit::storm::{self, Storm};
use gateway_transport_http::HttpLink;

struct Http;

#[async_trait::async_trait]
impl Subject for Http {
    async fn connect(&self, engine: MockEngine) -> Connected {
        let server = engine.serve_http().await.expect("a free port");
        let link = HttpLink::new(server.url()).expect("a valid address");
        Connected::new(Arc::new(link), server)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_http_link_conforms() {
    conformance::run(&Http).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_after_the_storm() {
    // Real sockets and real time: a silent runner is waited for long enough that a slow machine is not
    // taken for a silent runner.
    let storm = Storm { at_once: 100, patience: Duration::from_secs(1), ..Storm::default() };
    let report = storm::run(&Http, storm).await;
    println!("{report:?}");
    assert!(report.answered > 5_000 && report.cancelled > 1_000 && report.flaps > 10, "{report:?}");
}
