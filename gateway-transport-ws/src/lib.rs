//! Runners that dial in to the gateway over WebSocket: both ends.
//!
//! One connection, two kinds of frames. **Text frames** carry the control protocol ([`protocol`]):
//! registration, heartbeats, commands. **Binary frames** carry the tunnel ([`tunnel`]): HTTP/2 with the
//! gateway as the client, so that a runner behind NAT needs no open port. A runner that does not ask for
//! the tunnel is reached over HTTP at the port that it advertises. `PROTOCOL.md`, beside this crate's
//! sources, is enough to write a runner in another language from.
//!
//! - [`WsRunners`] is the gateway's side: a source of runners with a door, for the gateway's builder;
//!   [`WsAcceptor`] is the door alone, for hosts that mount it by themselves.
//! - [`agent`] is the runner's side, in front of any engine.
//! - [`socket`] is what both stand on.
//!
//! ```
//! use gateway_transport_ws::WsRunners;
//! let runners = WsRunners::builder().auth_token("the runners' secret").build();
//! // Gateway::builder().runners(runners)
//! # let _ = runners;
//! ```
//!
//! # Cancel safety
//!
//! Requests on a tunnel are cancelled by dropping their future or their answer, which resets the stream.
//! Dropping [`WsRunners`] ends every connection that came through its door.

mod acceptor;
pub mod agent;
mod dial_back;
pub mod protocol;
pub mod socket;
pub mod tunnel;

pub use acceptor::{Guarded, PeerAddr, Unguarded, WsAcceptor, WsRunners, WsRunnersBuilder};
