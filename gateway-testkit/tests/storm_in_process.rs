//! The storm without any transport, under virtual time.

use gateway_testkit::MockEngine;
use gateway_testkit::conformance::{Connected, Subject};
use gateway_testkit::storm::{self, Storm};

struct InProcess;

#[async_trait::async_trait]
impl Subject for InProcess {
    async fn connect(&self, engine: MockEngine) -> Connected {
        Connected::new(engine.link(), ())
    }
    fn has_connections(&self) -> bool {
        false
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_after_the_storm() {
    let report = storm::run(&InProcess, Storm::default()).await;
    println!("{report:?}");
    assert!(report.answered > 10_000 && report.cancelled > 2_000 && report.flaps > 10, "{report:?}");
    assert!(report.tries > 20_000, "the weather was too fair: {report:?}");
}
