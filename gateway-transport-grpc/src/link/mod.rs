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
/// place for is answered with 400 and an error that names the field; other paths are
/// [`LinkError::unsupported`]. A worker that declines before its first text is an answer with the HTTP status
/// that its gRPC status means; one that does later breaks the body off.
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
