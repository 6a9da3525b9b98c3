//! The storm through tunnels that are cut and dialled again, and through dial-back.

mod support;

use std::time::Duration;

use gateway_testkit::conformance::Subject;
use gateway_testkit::storm::{self, Storm};
use support::subjects::{DialBack, Tunnel};

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
