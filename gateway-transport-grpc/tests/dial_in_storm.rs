//! The storm through calls that are cut and made again.

mod dial_in_support;

use std::time::Duration;

use dial_in_support::subjects::DialIn;
use gateway_testkit::storm::{self, Storm};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left() {
    let storm = Storm { at_once: 100, patience: Duration::from_secs(1), ..Storm::default() };
    let report = storm::run(&DialIn, storm).await;
    println!("{report:?}");
    assert!(report.answered > 5_000 && report.cancelled > 1_000 && report.flaps > 10, "{report:?}");
}
