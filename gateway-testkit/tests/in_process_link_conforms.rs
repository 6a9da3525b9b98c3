//! The suite against the mock's own link: shows that the suite can be passed without any transport.

use gateway_testkit::MockEngine;
use gateway_testkit::conformance::{self, Connected, Subject};

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

#[tokio::test]
async fn in_process_link_conforms() {
    conformance::run(&InProcess).await;
}
