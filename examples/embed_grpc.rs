//! gRPC beside HTTP on one port, and a second gateway that dials it: the AiInference contract on both of its sides.
//!
//! `cargo run --example embed_grpc`

use std::time::Duration;

use gateway_core::{BoxError, CancellationToken};
use gateway_http::Gateway;
use gateway_testkit::{MockEngine, Script};
use gateway_transport_grpc::dial_in::GrpcDialIn;
use gateway_transport_grpc::{GrpcRunners, GrpcServer, proto};
use gateway_transport_http::HttpRunners;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;

#[path = "support/mod.rs"]
mod support;

/// Serves a request that goes through both gateways and says what came back.
///
/// # Errors
/// Anything that went wrong.
pub(crate) async fn run() -> Result<Vec<String>, BoxError> {
    let engine = MockEngine::new(|seen| match seen.head.uri.path() {
        "/v1/models" => Script::text(r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#),
        "/v1/completions" => Script::sse([
            r#"{"choices":[{"index":0,"text":"hello ","finish_reason":null}]}"#,
            r#"{"choices":[{"index":0,"text":"from afar","finish_reason":"stop"}]}"#,
        ]),
        _ => Script::status(404, "{}"),
    });
    let engine = engine.serve_http().await?;

    // The back: its runners speak HTTP, or dial in over gRPC; clients come over either.
    let dial_in = GrpcDialIn::builder().auth_token("runner-secret").build();
    let runner_gateway = dial_in.service();
    let back = Gateway::builder()
        .runners(HttpRunners::fixed([engine.url()]))
        .runners(dial_in)
        .client_tokens(["client-secret"])
        .build()?;
    let grpc = GrpcServer::builder(back.clone())
        .registry(back.dispatcher().registry().clone())
        .service(runner_gateway, proto::descriptors::RUNNER_GATEWAY)
        .build()?;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let service = TowerToHyperService::new(grpc.beside(back.clone()));
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let server = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Some(Ok((stream, _))) = stopped.run_until_cancelled(listener.accept()).await {
            let _ = stream.set_nodelay(true);
            let (service, http) = (service.clone(), auto::Builder::new(TokioExecutor::new()));
            connections.spawn(async move {
                let _ = http.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
            while connections.try_join_next().is_some() {}
        }
    });
    support::model_is_there(&back).await;

    // The front: its only runner is the back, over gRPC.
    let front = Gateway::builder()
        .runners(GrpcRunners::connect(address.to_string()).token("client-secret"))
        .client_tokens(["client-secret"])
        .build()?;
    support::model_is_there(&front).await;
    let seen = vec![support::chat(&front).await?];

    front.shutdown(Duration::from_secs(30)).await;
    grpc.close();
    back.shutdown(Duration::from_secs(30)).await;
    stop.cancel();
    server.await?;
    Ok(seen)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}
