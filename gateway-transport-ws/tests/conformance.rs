//! Both data paths against the suite that every link must pass.

mod support;

use gateway_testkit::conformance;
use support::subjects::{DialBack, Tunnel, TunnelAndHttp};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tunnel_conforms() {
    conformance::run(&Tunnel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tunnel_to_a_proxy_conforms() {
    conformance::run(&TunnelAndHttp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dialling_back_conforms() {
    conformance::run(&DialBack).await;
}
