//! The link to one worker, coordinator or sidecar that speaks the contract.

mod answer;
mod builder;
mod call;
mod connection;
mod control;
mod detect;
mod dial;
mod frames;
mod predict;
mod reader;
mod settings;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use gateway_core::{
    Command, CommandReply, LinkAbilities, LinkDescription, LinkError, LinkRequest, LinkResponse, RunnerLink,
};

pub(crate) use builder::Shared;
pub use builder::{GrpcLinkBuilder, InvalidGrpcLink};
pub use control::WorkerHealth;

use crate::contract::Dialect;
use dial::Dialler;

/// The link to whoever serves the AiInference contract: a worker, a coordinator or a sidecar.
///
/// It keeps one HTTP/2 connection, made when it is first needed and again when it was lost. While the worker
/// cannot be reached, requests are [`LinkError::not_sent`]; it is tried again after a pause that grows from 0.1
/// to 5 s.
///
/// Requests to `/v1/chat/completions` and `/v1/completions` become `StreamPredict`. What the contract has no
/// place for is answered with 400 and an error that names the field; other paths with
/// 501. A worker that declines before its first text is an answer with the HTTP status
/// that its gRPC status means; one that does later breaks the body off.
///
/// | of the request | in the call |
/// |---|---|
/// | `model` | `model_id`; answers have the same name |
/// | `messages`, by the [template](GrpcLinkBuilder::template), or `prompt` as it is | `prompt` |
/// | `max_completion_tokens`, or else `max_tokens` | `max_new_tokens`; 256 if neither is there |
/// | `temperature`, `top_p`, `repetition_penalty` | the same; 0.7, 0.9 and 1.0 if they are not there. 0 means "not set" in the contract: a temperature of 0 goes as 0.01 with a `top_p` of 0.000001, which leaves the likeliest token only; a `top_p` of 0 goes as 0.000001 |
/// | `adapter` or `lora` (extensions) | `adapter`, or else the link's |
/// | `worker_hint` (extension) or the header `x-worker-hint` | `worker_hint` |
/// | how urgent it is: the [`Claim`](gateway_core::Claim) among its extensions, or else the header `x-priority` | `priority`: 1, 0 or -1 for high, normal and low |
/// | the header `x-request-id` | `metadata.trace_id`, and the answer's `id` |
/// | the tenant of its [`Claim`](gateway_core::Claim) | `metadata.tenant` |
/// | `user` | `metadata.player_id` |
/// | `metadata` | `metadata.locale` if it has a `locale`, the rest `metadata.extra` |
/// | the header `x-request-timeout-ms` | the call's deadline (`grpc-timeout`) |
/// | `stop` | nothing: the answer is cut on this side, and the call cancelled |
///
/// The plain dialect has no metadata but the trace id. Other fields that merely colour an answer (`seed`, penalties)
/// are left out. A `finish_reason` is `stop` unless the worker's trailers say `finish-reason: length`; there is a
/// `usage` if they have `prompt-tokens` and `completion-tokens`.
///
/// Bounds: 1,024 calls at once, 64 KiB on their way on each before they are read, messages of 100 MiB; 5 s to
/// connect. All can be set, see [`GrpcLink::builder`].
///
/// The connection ends when the link is [closed](RunnerLink::close) or dropped, with the calls that it has.
///
/// ```
/// use gateway_core::RunnerLink;
/// use gateway_transport_grpc::GrpcLink;
///
/// let link = GrpcLink::new("unix:///run/cy_sidecar.sock")?;
/// assert_eq!(link.describe().address.as_deref(), Some("unix:/run/cy_sidecar.sock"));
/// # Ok::<(), gateway_transport_grpc::InvalidGrpcLink>(())
/// ```
pub struct GrpcLink {
    dialler: Arc<Dialler>,
}

impl GrpcLink {
    /// A link to `address` with every default: see [`GrpcAddress`](crate::GrpcAddress) for its forms. Connects to
    /// nothing yet.
    ///
    /// # Errors
    ///
    /// If the address has none of these forms.
    pub fn new(address: impl AsRef<str>) -> Result<Self, InvalidGrpcLink> {
        Self::builder(address).build()
    }

    /// A link to `address` with settings of its own.
    pub fn builder(address: impl AsRef<str>) -> GrpcLinkBuilder {
        GrpcLinkBuilder::new(address.as_ref())
    }

    /// The dialect that the worker speaks on the connection that there is; `None` while there is none.
    pub fn dialect(&self) -> Option<Dialect> {
        self.dialler.dialect()
    }
}

#[async_trait]
impl RunnerLink for GrpcLink {
    fn describe(&self) -> LinkDescription {
        LinkDescription { transport: "grpc", address: Some(self.dialler.settings.address.to_string()) }
    }

    fn abilities(&self) -> LinkAbilities {
        LinkAbilities::NONE.with_claims()
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        predict::predict(&self.dialler, request).await
    }

    async fn command(&self, command: Command) -> Result<CommandReply, LinkError> {
        self.carry_out(command).await
    }

    fn close(&self) {
        self.dialler.close();
    }
}

impl Drop for GrpcLink {
    fn drop(&mut self) {
        self.dialler.close();
    }
}

impl fmt::Debug for GrpcLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcLink")
            .field("address", &format_args!("{}", self.dialler.settings.address))
            .finish_non_exhaustive()
    }
}
