//! The runner's side: dials gateways, registers an engine with them, and serves it through the call.
//!
//! ```no_run
//! use std::sync::Arc;
//! use gateway_core::{CancellationToken, RunnerId, RunnerLink, RunnerSpec};
//! use gateway_transport_grpc::dial_in::agent::Agent;
//!
//! # async fn example(engine: Arc<dyn RunnerLink>) -> Result<(), Box<dyn std::error::Error>> {
//! let agent = Agent::builder()
//!     .gateway("grpc://gateway-1:50050")
//!     .gateway("unix:/run/gateway.sock")
//!     .token("the runners' secret")
//!     .spec(RunnerSpec::new(RunnerId::new("gpu-1")?).machine("gpu").slots(8).label("zone", "eu"))
//!     .engine(engine)
//!     .build()?;
//! let stop = CancellationToken::new();
//! // Cancel `stop` when the process is told to end; `run` then drains and returns.
//! agent.run(stop).await;
//! # Ok(())
//! # }
//! ```
//!
//! An agent that holds gateways of both kinds is made of either builder and the other's transport, such as
//! `gateway_transport_ws::agent::Agent::builder().transport(Grpc)`.

mod address;
mod dial;
mod serve;
mod uplink;

use std::sync::Arc;

pub use gateway_dial_in::agent::{
    AgentBuilder, Backoff, Connector, GatewayStream, InvalidAgent, InvalidBackoff, TcpConnector,
};
use gateway_dial_in::agent::{BadAddress, Gateway, Transport};

use address::Address;

/// Where an agent that dials over gRPC begins; what is built is a [`gateway_dial_in::agent::Agent`].
#[derive(Debug)]
pub enum Agent {}

impl Agent {
    /// Starts with the defaults and [`Grpc`]. A gateway, a spec and an engine have to be given.
    pub fn builder() -> AgentBuilder {
        gateway_dial_in::agent::Agent::builder().transport(Grpc)
    }
}

/// Dialling in over gRPC, for an agent that holds gateways of several kinds.
///
/// An address is `grpc://host:port` (the port is 50050 if there is none), `unix:PATH` or `unix:///PATH`. Requests
/// always come through the call; the agent's settings `tunnel` and `http_port` mean nothing here, and its
/// connector is not asked for Unix sockets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Grpc;

impl Transport for Grpc {
    fn gateway(&self, address: &str) -> Result<Arc<dyn Gateway>, BadAddress> {
        Ok(Arc::new(Address::parse(address)?))
    }
}
