//! Runners that dial in against the suite that every link must pass.

mod dial_in_support;

use dial_in_support::subjects::{DialIn, DialInAndHttp};
use gateway_testkit::conformance;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dialling_in_conforms() {
    conformance::run(&DialIn).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dialling_in_to_a_proxy_conforms() {
    conformance::run(&DialInAndHttp).await;
}
