//! Runners that dial in over gRPC: both ends. `proto/runner_gateway.proto` is the reference, and enough to write a
//! runner in another language from.
//!
//! - [`GrpcDialIn`] is the gateway's side: a source of runners for the gateway's builder, and a tower service
//!   ([`DialInService`]) for the host's gRPC server.
//! - [`agent`] is the runner's side, in front of any engine.
//!
//! ```
//! use gateway_transport_grpc::dial_in::GrpcDialIn;
//! let runners = GrpcDialIn::builder().auth_token("the runners' secret").build();
//! let service = runners.service();
//! // Gateway::builder().runners(runners), and `service` beside the host's other gRPC services.
//! # let _ = (runners, service);
//! ```
//!
//! # What a host should set
//!
//! The service lives in the host's HTTP/2 server. Frames that must not wait (commands, cancellations) go before
//! data in what this crate writes; behind that stands the server's own buffer for one HTTP/2 stream, so set it
//! small (hyper: `max_send_buf_size(64 * 1024)`). HTTP/2's keep-alive finds runners whose machine is gone before
//! their heartbeats are missed.
//!
//! # Cancel safety
//!
//! Requests are cancelled by dropping their future or their answer, which resets their stream. Dropping
//! [`GrpcDialIn`] ends every connection that came through its service.

pub mod agent;
mod arrival;
mod builder;
mod connection;
mod link;
mod mux;
mod reader;
mod service;
mod upload;
mod wire;

use std::sync::Arc;

use async_trait::async_trait;
use gateway_core::{CancellationToken, Registry, RunnerSource};
use gateway_dial_in::gateway::Lobby;
use tokio_util::sync::DropGuard;

pub use builder::{GrpcDialInBuilder, Guarded, Unguarded};
pub use service::DialInService;

/// The version of the protocol that is spoken here.
pub const PROTOCOL_VERSION: u32 = 1;

/// The most requests on one runner's connection at once, whatever it asks for: bounds its memory here to this
/// times 64 KiB, either way.
pub const MAX_STREAMS: u32 = mux::MAX_STREAMS;

/// Runners that dial in over gRPC: a source for the gateway's builder, with a service for the host's gRPC server.
///
/// ```
/// use gateway_transport_grpc::dial_in::GrpcDialIn;
/// let runners = GrpcDialIn::builder().auth_token("the runners' secret").build();
/// # let _ = runners;
/// ```
///
/// Every connection is one task, which reads; what is written is pulled by the host's server. They end with the
/// source.
pub struct GrpcDialIn {
    shared: Arc<Shared>,
    /// Connections end with the source even if it is dropped without having run.
    _ends: DropGuard,
}

struct Shared {
    max_streams: u32,
    lobby: Arc<Lobby>,
}

impl GrpcDialIn {
    /// Everything at its default, but who may come in must be said.
    pub fn builder() -> GrpcDialInBuilder<Unguarded> {
        GrpcDialInBuilder::new()
    }

    fn new(shared: Shared) -> Self {
        let stop = shared.lobby.stop().clone();
        Self { shared: Arc::new(shared), _ends: stop.drop_guard() }
    }

    /// The service where runners dial in. It lets them in as soon as the source runs.
    pub fn service(&self) -> DialInService {
        DialInService::new(self.shared.clone())
    }
}

#[async_trait]
impl RunnerSource for GrpcDialIn {
    async fn run(self: Box<Self>, registry: Arc<dyn Registry>, stop: CancellationToken) {
        self.shared.lobby.run(registry, stop).await;
    }
}
