//! The link of the contract against the suite that every link must pass, and through the storm: in both dialects,
//! over both kinds of sockets.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gateway_testkit::MockEngine;
use gateway_testkit::conformance::{self, Connected, Subject};
use gateway_testkit::storm::{self, Storm};
use gateway_transport_grpc::Dialect;
use support::carriage::{Carriage, worker};
use support::{Served, link};

/// Over TCP, or over a socket in the directory.
struct Grpc {
    dialect: Dialect,
    directory: Option<tempfile::TempDir>,
    sockets: AtomicU64,
}

impl Grpc {
    fn tcp(dialect: Dialect) -> Self {
        Self { dialect, directory: None, sockets: AtomicU64::new(0) }
    }

    fn unix(dialect: Dialect) -> Self {
        Self { directory: Some(tempfile::tempdir().expect("a directory")), ..Self::tcp(dialect) }
    }
}

#[async_trait::async_trait]
impl Subject for Grpc {
    async fn connect(&self, engine: MockEngine) -> Connected {
        let worker = worker(engine);
        let served = match &self.directory {
            None => worker.serve(self.dialect).await,
            Some(directory) => {
                let number = self.sockets.fetch_add(1, Ordering::Relaxed);
                let path = directory.path().join(format!("{number}.sock"));
                Served::unix(worker, self.dialect, &path).await
            }
        };
        Connected::new(Arc::new(Carriage::new(link(&served))), served)
    }

    /// A window of 64 KiB, the 400 KiB that the worker's server holds, and some chunks in our own hands.
    fn buffered_at_most(&self) -> u64 {
        2 * 1024 * 1024
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_contract_over_tcp_conforms() {
    conformance::run(&Grpc::tcp(Dialect::Packaged)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_contract_over_tcp_conforms() {
    conformance::run(&Grpc::tcp(Dialect::Plain)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_contract_over_a_unix_socket_conforms() {
    conformance::run(&Grpc::unix(Dialect::Packaged)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documents_contract_over_a_unix_socket_conforms() {
    conformance::run(&Grpc::unix(Dialect::Plain)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_after_the_storm() {
    // Real sockets and real time: a silent runner is waited for long enough that a slow machine is not
    // taken for a silent runner.
    let storm = Storm { at_once: 100, patience: Duration::from_secs(1), ..Storm::default() };
    let report = storm::run(&Grpc::tcp(Dialect::Packaged), storm).await;
    println!("{report:?}");
    assert!(report.answered > 5_000 && report.cancelled > 1_000 && report.flaps > 10, "{report:?}");
}
