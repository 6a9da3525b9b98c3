//! What every way of dialling in to the gateway shares: typed messages, who may come in, the life of a
//! connection, the runner's agent. No socket protocol of any kind is spoken here: `gateway-transport-ws` and
//! `gateway-transport-grpc` do that, each on both sides.
//!
//! - [`gateway`] is the gateway's side. A transport accepts a connection, checks the registration with
//!   [`gateway::Lobby`], and hands it over as a [`gateway::Arrival`]; heartbeats, pings, membership, commands
//!   and the end are the same for all.
//! - [`agent`] is the runner's side. A transport is an [`agent::Transport`], which knows addresses; what is
//!   reported, what is let in and when to dial again are the same for all, so that one agent can hold gateways
//!   of several kinds at once.
//! - [`FromRunner`] and [`FromGateway`] are what both sides say once a runner is in.

pub mod agent;
pub mod gateway;
mod words;

pub use words::{FromGateway, FromRunner, Order, Unsaid};
