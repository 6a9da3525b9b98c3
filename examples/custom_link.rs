//! A link of your own: a runner that is an async function in this process.
//!
//! `cargo run --example custom_link`. The conformance suite of `gateway-testkit` shows whether a link
//! keeps its promises; `tests/small_examples.rs` puts this one through it.

use std::sync::Arc;

use async_trait::async_trait;
use gateway_core::{
    BoxError, LinkBody, LinkDescription, LinkError, LinkRequest, LinkResponse, ModelId, Registry, RunnerId,
    RunnerLink, RunnerSpec, RunnerStatus,
};
use gateway_http::Gateway;
use http_body_util::BodyExt;

#[path = "support/mod.rs"]
mod support;

/// Sends requests to a function. Dropping what it returns stops the work, as a link must, because nothing
/// of it runs anywhere else.
pub(crate) struct FunctionLink<F>(pub(crate) F);

#[async_trait]
impl<F, R> RunnerLink for FunctionLink<F>
where
    F: Fn(LinkRequest) -> R + Send + Sync + 'static,
    R: Future<Output = Result<LinkResponse, LinkError>> + Send + 'static,
{
    fn describe(&self) -> LinkDescription {
        LinkDescription { transport: "function", address: None }
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        (self.0)(request).await
    }
}

/// Answers with the number of bytes that it was sent.
async fn count_bytes(request: LinkRequest) -> Result<LinkResponse, LinkError> {
    let body = request.into_body().collect().await.map_err(LinkError::request_body)?.to_bytes();
    let answer = support::chat_answer(&format!("{} bytes", body.len()));
    let mut response = http::Response::new(LinkBody::full(answer));
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    Ok(response)
}

/// Asks it through a gateway.
///
/// # Errors
/// Anything that went wrong.
pub(crate) async fn run() -> Result<Vec<String>, BoxError> {
    let registry = support::registry();
    let status = RunnerStatus::serving([ModelId::new("m")?]);
    registry.join(RunnerSpec::new(RunnerId::new("counter")?), status, Arc::new(FunctionLink(count_bytes)));
    let gateway = Gateway::builder().registry(registry.clone()).client_tokens(["client-secret"]).build()?;
    Ok(vec![support::chat(&gateway).await?])
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}
