//! The gateway inside an axum application, beside its other routes.
//!
//! `cargo run --example embed_axum`

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use gateway_core::{BoxError, LeastLoaded};
use gateway_http::Gateway;
use gateway_transport_http::HttpRunners;
use gateway_transport_ws::WsRunners;

#[path = "support/mod.rs"]
mod support;

/// Serves one request of each kind and says what came back.
///
/// # Errors
/// Anything that went wrong.
pub(crate) async fn run() -> Result<Vec<String>, BoxError> {
    let runner = support::runner_over_http().await?;

    let gateway = Gateway::builder()
        .strategy(LeastLoaded::default())
        .runners(WsRunners::builder().auth_token("runner-secret").build()) // they dial in at /ws/runners
        .runners(HttpRunners::fixed([runner.url()])) // we dial them
        .client_tokens(["client-secret"])
        .build()?;
    let app = Router::new()
        .route("/", get(async || "the application's own page"))
        .fallback_service(gateway.clone());

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    support::model_is_there(&gateway).await;
    let seen = vec![
        support::ask(address, "GET", "/", "").await?,
        support::ask(address, "POST", "/v1/chat/completions", support::CHAT).await?,
    ];
    gateway.shutdown(Duration::from_secs(30)).await; // drains
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
