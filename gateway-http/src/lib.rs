//! The inference gateway as one [`tower_service::Service`] that is mounted in a server of your own.
//!
//! ```
//! use std::time::Duration;
//! use gateway_core::LeastLoaded;
//! use gateway_http::Gateway;
//!
//! # async fn embed() -> Result<(), gateway_http::BuildError> {
//! let gateway = Gateway::builder()
//!     .strategy(LeastLoaded::default())
//!     // .runners(WsRunners::builder().auth_token(token).build())
//!     // .runners(HttpRunners::fixed(["http://10.0.0.5:8000"]))
//!     .client_tokens(["a-key-for-clients"])
//!     .admin_tokens(["a-key-for-admins"])
//!     .build()?;
//!
//! // axum:   Router::new().fallback_service(gateway.clone())
//! // hyper:  TowerToHyperService::new(gateway.clone())
//! // a test: gateway.clone().call(request).await
//! # fn mount(_: impl tower_service::Service<http::Request<String>, Error = std::convert::Infallible>) {}
//! # mount(gateway.clone());
//!
//! gateway.shutdown(Duration::from_secs(30)).await;
//! # Ok(())
//! # }
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(embed()).unwrap();
//! ```
//!
//! # Routes
//!
//! | route | for whom |
//! |---|---|
//! | `POST /v1/chat/completions`, `/v1/completions`, `/v1/embeddings` | clients |
//! | `GET /v1/models`, `/v1/models/{id}` | clients |
//! | `GET /health`, `/readyz`, `/v1/metadata` | everybody |
//! | `GET /runners`, `/admin/runners` | admins |
//! | `POST /admin/runners/{id}/load-model`, `/unload-model`, `/drain`, `/request-status` | admins |
//! | `GET /admin/runners/events` | admins |
//! | `POST /admin/explain` | admins: takes what an inference request does and says which runners could serve it |
//! | whatever [`GatewayBuilder::generic`] adds | clients |
//! | the doors of the runner sources, such as `/ws/runners` | runners; the door checks them |
//!
//! Every failure of the gateway has OpenAI's error object as its body; what a runner itself answers passes as it is. Metrics are not among the routes: they are
//! served by [`Gateway::observability`], wherever the host wants them.
//!
//! # What clients can say
//!
//! All of it is optional, and passed on to the runner as it is.
//!
//! | header | meaning |
//! |---|---|
//! | `x-session-id` | names the conversation, for strategies that send one to where it was; else the body's `prompt_cache_key` or `user` does. One tenant's names mean nothing to another's. |
//! | `x-request-timeout-ms` | in how many milliseconds the whole answer is wanted: strategies that keep deadlines mind it, and nobody waits for a slot for longer. An answer that has begun is not cut. |
//! | `x-priority` | `high`, `normal` or `low`: who goes first when all runners are full. Else the body's `service_tier` says so: `priority` is high, `flex` is low. Nobody gets more than its [`Identity`] was granted, which is `normal` unless said. |
//! | `x-gateway-cpus`, `x-gateway-gpus`, `x-gateway-memory-gb` | what must be free on the runner, if [`GatewayBuilder::needs_from_headers`] allows it |
//!
//! # What is promised
//!
//! - **Bytes are preserved.** Of a request's body a few fields are looked at. What reaches the runner is what
//!   the client sent, byte for byte, unless the runner knows the model by another name; then that name alone
//!   is replaced. Chunks of an answer are passed on as they come.
//!   Of a request to a [`GenericRoute`] nothing is looked at.
//! - **A broken stream is told.** When a runner dies in the middle of an event stream, the client gets an
//!   error event and `[DONE]`. Any other answer is cut off, so that nobody takes a part for the whole.
//! - **Authentication is on** unless it is switched off by name.
//! - **Nothing is installed** in the process: no logger, no metrics recorder, no listener.
//!
//! # Features
//!
//! None is on by default.
//!
//! - `sqlite`: `SqliteLog`, a [`RequestSink`] that keeps a row of every finished request in an SQLite file. It compiles
//!   SQLite itself, so it needs a C compiler.
//!
//! # Cancel safety
//!
//! Dropping the future of a call, or the body of its answer, cancels the request on the runner.

mod admin;
mod admission;
mod api;
mod auth;
mod body;
mod builder;
mod decision;
mod error;
mod gateway;
mod generic;
mod headers;
mod inference;
mod metrics;
mod needs;
mod observability;
mod openapi;
mod refusals;
mod request_log;
mod respond;
mod route;
mod shutdown;

pub use admission::{Admission, Refused};
pub use auth::{AuthError, Authenticator, BearerTokens, Identity, InvalidToken};
pub use body::GatewayBody;
pub use builder::{BuildError, GatewayBuilder};
pub use decision::Decision;
pub use gateway::{Gateway, ResponseFuture};
pub use generic::{Forwarding, GenericRoute, InvalidNetwork, InvalidRoute};
pub use inference::PromptHashing;
pub use needs::Need;
pub use observability::Observability;
pub use openapi::{OpenApi, OpenApiError, Operation};
pub use request_log::{RequestRecord, RequestSink};
#[cfg(feature = "sqlite")]
pub use request_log::{SqliteLog, SqliteLogBuilder, SqliteLogError};
pub use shutdown::Drained;
