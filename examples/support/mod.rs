//! What the small examples share: a stand-in for an inference engine, and a client.
#![allow(dead_code, reason = "each example uses its own part of it")]

use std::net::SocketAddr;
use std::sync::Arc;

use gateway_core::{
    BoxError, InMemoryRegistry, ModelId, Registry, RequestBody, RunnerId, RunnerKey, RunnerSpec, RunnerStatus,
};
use gateway_http::Gateway;
use gateway_testkit::{MockEngine, MockServer, Script};
use http_body_util::BodyExt;
use tower::ServiceExt;

/// The body of a chat request for the stand-in's model.
pub(crate) const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

/// A stand-in for an engine that has the model `m` and says who it is.
pub(crate) fn engine(name: &'static str) -> MockEngine {
    MockEngine::new(move |seen| match seen.head.uri.path() {
        "/v1/models" => json(r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#.to_owned()),
        "/v1/chat/completions" => json(chat_answer(&format!("hello from {name}"))),
        _ => Script::status(404, "{}"),
    })
}

/// The body of an answer in the shape of OpenAI's.
pub(crate) fn chat_answer(text: &str) -> String {
    format!(
        r#"{{"object":"chat.completion","model":"m","choices":[{{"index":0,"finish_reason":"stop","message":{{"role":"assistant","content":"{text}"}}}}]}}"#
    )
}

fn json(body: String) -> Script {
    Script::text(body).header(http::header::CONTENT_TYPE, "application/json")
}

/// The stand-in behind a port of its own.
///
/// # Errors
/// No port is free.
pub(crate) async fn runner_over_http() -> Result<MockServer, BoxError> {
    Ok(engine("http").serve_http().await?)
}

/// Adds the stand-in to a registry under a name, with labels.
///
/// # Errors
/// The name is not valid.
pub(crate) fn join(
    registry: &dyn Registry,
    name: &'static str,
    labels: &[(&str, &str)],
) -> Result<RunnerKey, BoxError> {
    let spec = RunnerSpec::new(RunnerId::new(name)?).slots(2);
    let spec = labels.iter().fold(spec, |spec, (key, value)| spec.label(*key, *value));
    let status = RunnerStatus::serving([ModelId::new("m")?]);
    Ok(registry.join(spec, status, engine(name).link()))
}

/// An empty registry.
pub(crate) fn registry() -> Arc<InMemoryRegistry> {
    Arc::new(InMemoryRegistry::new())
}

/// Waits until the stand-in's model can be served.
pub(crate) async fn model_is_there(gateway: &Gateway) {
    let dispatcher = gateway.dispatcher();
    let registry = dispatcher.registry();
    let mut events = registry.events();
    while !registry.fleet().can_serve() && events.next().await.is_some() {}
}

/// Waits until nothing can be served any more.
pub(crate) async fn model_is_gone(gateway: &Gateway) {
    let dispatcher = gateway.dispatcher();
    let registry = dispatcher.registry();
    let mut events = registry.events();
    while registry.fleet().can_serve() && events.next().await.is_some() {}
}

/// Asks the gateway without any server: it is a service like any other.
///
/// # Errors
/// The answer broke off.
pub(crate) async fn chat(gateway: &Gateway) -> Result<String, BoxError> {
    let request = http::Request::post("/v1/chat/completions")
        .header("authorization", "Bearer client-secret")
        .header("content-type", "application/json")
        .body(RequestBody::from(CHAT))?;
    let Ok(response) = gateway.clone().oneshot(request).await;
    let (head, body) = response.into_parts();
    let text = body.collect().await?.to_bytes();
    Ok(format!("{} {}", head.status.as_u16(), String::from_utf8_lossy(&text)))
}

/// Asks over a connection and gives back the status and the answer's text.
///
/// # Errors
/// No answer came.
pub(crate) async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> Result<String, BoxError> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", address.to_string())
        .header("authorization", "Bearer client-secret")
        .header("content-type", "application/json")
        .body(body.to_owned())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let text = body.collect().await?.to_bytes();
    connection.abort();
    Ok(format!("{} {}", head.status.as_u16(), String::from_utf8_lossy(&text)))
}
