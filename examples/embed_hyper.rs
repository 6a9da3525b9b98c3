//! The gateway under a bare hyper server: a loop, a connection, a service.
//!
//! `cargo run --example embed_hyper`

use std::time::Duration;

use gateway_core::BoxError;
use gateway_http::Gateway;
use gateway_transport_http::HttpRunners;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;

#[path = "support/mod.rs"]
mod support;

/// Serves one request and says what came back.
///
/// # Errors
/// Anything that went wrong.
pub(crate) async fn run() -> Result<Vec<String>, BoxError> {
    let runner = support::runner_over_http().await?;
    let gateway = Gateway::builder()
        .runners(HttpRunners::fixed([runner.url()]))
        .client_tokens(["client-secret"])
        .build()?;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let service = TowerToHyperService::new(gateway.clone());
    let server = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service.clone())
                .with_upgrades(); // for runners that dial in
            connections.spawn(connection);
            while connections.try_join_next().is_some() {}
        }
    });

    support::model_is_there(&gateway).await;
    let seen = vec![support::ask(address, "POST", "/v1/chat/completions", support::CHAT).await?];
    gateway.shutdown(Duration::from_secs(30)).await;
    server.abort();
    Ok(seen)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}
