//! Tools for testing the gateway and everything that plugs into it.
//!
//! - [`MockEngine`]: a runner whose every answer is scripted ([`Script`]) and whose every request is
//!   counted. It is reached in process ([`MockEngine::link`]), over HTTP ([`MockEngine::serve_http`]) or
//!   over any transport whose far end takes a [`RunnerLink`](gateway_core::RunnerLink).
//! - [`ScriptedOllama`], [`ScriptedNeutrino`]: runners that answer as real engines do, with their state.
//! - [`Fault`]: what can go wrong on a runner, by name.
//! - [`Recorder`]: hears of every try, and [`assert_all_zero`] shows that nothing was left behind.
//! - [`conformance`]: the suite that every link must pass; run it against your own.
//! - [`storm`]: thousands of requests over runners that come, go and fail.
//!
//! ```
//! # use gateway_testkit::{MockEngine, Script};
//! # use gateway_core::{Dispatch, Dispatcher, InMemoryRegistry, ModelId, Permit, Registry, RequestBody,
//! #     RequestId, Requirements, RunnerId, RunnerSpec, RunnerStatus};
//! # use std::sync::Arc;
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let engine = MockEngine::new(|_| Script::text("hello"));
//! let registry = Arc::new(InMemoryRegistry::new());
//! let model = ModelId::new("m").unwrap();
//! registry.join(
//!     RunnerSpec::new(RunnerId::new("r").unwrap()),
//!     RunnerStatus::serving([model.clone()]),
//!     engine.link(),
//! );
//! let dispatcher = Dispatcher::builder(registry).build();
//! let answer = dispatcher
//!     .dispatch(gateway_testkit::request(&model, "{}"))
//!     .await
//!     .unwrap();
//! assert_eq!(gateway_testkit::text(answer.response).await.unwrap(), "hello");
//! gateway_testkit::assert_all_zero(&dispatcher, [&engine]).await;
//! # });
//! ```

mod command;
pub mod conformance;
mod engine;
mod engines;
mod http_server;
mod recorder;
mod script;
pub mod storm;

pub use command::{CommandCounts, CommandScript};
pub use engine::{Counts, MockEngine, Seen};
pub use engines::{ScriptedNeutrino, ScriptedOllama};
pub use http_server::MockServer;
pub use recorder::{Recorder, assert_all_zero};
pub use script::{ChunkSender, Fault, Script};

use bytes::Bytes;
use gateway_core::{BoxError, Dispatch, ModelId, Permit, RequestBody, RequestId, Requirements};
use http_body::Body;
use http_body_util::BodyExt;

/// A chat request for `model` with that body, ready for the dispatcher.
pub fn request(model: &ModelId, body: impl Into<Bytes>) -> Dispatch {
    let mut request = http::Request::new(RequestBody::from(body));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static("/v1/chat/completions");
    Dispatch {
        id: RequestId::random(),
        request,
        requirements: Requirements::model(model.clone()),
        claim: gateway_core::Claim::default(),
        permit: Permit::free(),
        terms: gateway_core::Terms::default(),
    }
}

/// Reads an answer's body to its end as text.
///
/// # Errors
/// The body broke off, or is not UTF-8.
pub async fn text<B>(response: http::Response<B>) -> Result<String, BoxError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let body = response.into_body().collect().await.map_err(Into::into)?;
    Ok(String::from_utf8(body.to_bytes().to_vec())?)
}
