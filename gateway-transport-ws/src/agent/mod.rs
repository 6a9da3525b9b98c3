//! The runner's side: dials gateways, registers an engine with them, and serves it through the tunnel.
//!
//! ```no_run
//! use std::sync::Arc;
//! use gateway_core::{CancellationToken, RunnerId, RunnerSpec};
//! use gateway_transport_http::{EngineLink, HttpLink};
//! use gateway_transport_ws::agent::Agent;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = EngineLink::new(HttpLink::new("http://127.0.0.1:8000")?);
//! let agent = Agent::builder()
//!     .gateway("ws://gateway-1:8080/ws/runners")
//!     .gateway("ws://gateway-2:8080/ws/runners")
//!     .token("the runners' secret")
//!     .spec(RunnerSpec::new(RunnerId::new("gpu-1")?).machine("gpu").slots(8).label("zone", "eu"))
//!     .engine(Arc::new(engine))
//!     .build()?;
//! let stop = CancellationToken::new();
//! // Cancel `stop` when the process is told to end; `run` then drains and returns.
//! agent.run(stop).await;
//! # Ok(())
//! # }
//! ```

mod dial;
mod endpoint;
mod uplink;

use std::sync::Arc;

pub use gateway_dial_in::agent::{
    AgentBuilder, Backoff, Connector, GatewayStream, InvalidAgent, InvalidBackoff, TcpConnector,
};
use gateway_dial_in::agent::{BadAddress, Gateway, Transport};

use endpoint::Endpoint;

/// Where an agent that dials over WebSocket begins; what is built is a [`gateway_dial_in::agent::Agent`].
#[derive(Debug)]
pub enum Agent {}

impl Agent {
    /// Starts with the defaults and [`WebSocket`]. A gateway, a spec and an engine have to be given.
    pub fn builder() -> AgentBuilder {
        gateway_dial_in::agent::Agent::builder().transport(WebSocket)
    }
}

/// Dialling in over WebSocket, for an agent that holds gateways of several kinds.
///
/// An address is `ws://host:8080/ws/runners`. `http://` means the same as `ws://`; the path is `/ws/runners` if
/// there is none, the port 80.
#[derive(Debug, Clone, Copy, Default)]
pub struct WebSocket;

impl Transport for WebSocket {
    fn gateway(&self, address: &str) -> Result<Arc<dyn Gateway>, BadAddress> {
        Ok(Arc::new(Endpoint::parse(address)?))
    }
}
