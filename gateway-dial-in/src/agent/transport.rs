//! What a way of dialling in gives the agent.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gateway_core::{RunnerLink, RunnerSpec, RunnerStatus};

use super::{Connector, Failed};
use crate::{FromGateway, FromRunner, Unsaid};

/// A way of dialling in, which knows its own addresses. An agent may have several.
pub trait Transport: Send + Sync + 'static {
    /// The gateway at that address. Dials nothing.
    ///
    /// # Errors
    ///
    /// It is an address of another transport ([`BadAddress::NotMine`]), or it makes no sense.
    fn gateway(&self, address: &str) -> Result<Arc<dyn Gateway>, BadAddress>;
}

/// What is wrong with a gateway's address. The texts say what to write instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadAddress {
    /// Its scheme, or that it has none, says that it is not this transport's.
    NotMine(&'static str),
    /// It asks for TLS.
    Tls,
    /// Anything else.
    Problem(&'static str),
}

/// A gateway that is dialled. Two that mean the same place are displayed alike; nothing secret is displayed.
#[async_trait]
pub trait Gateway: fmt::Display + Send + Sync + 'static {
    /// Connects, handshake and all. Dropped when it takes longer than the agent's connect timeout.
    async fn dial(&self, connector: &dyn Connector) -> Result<Box<dyn Dialled>, Failed>;
}

/// A connection on which the runner is not yet known.
#[async_trait]
pub trait Dialled: Send {
    /// Registers, and waits for the gateway's word. Requests that come through the connection are served by
    /// `gate` from then on. Dropped when it takes longer than the agent's ack timeout.
    async fn register(
        self: Box<Self>,
        introduction: Introduction<'_>,
        gate: Arc<dyn RunnerLink>,
    ) -> Result<Registered, Failed>;
}

/// Who the runner is, and what it asks for.
#[derive(Clone, Copy)]
pub struct Introduction<'a> {
    /// What it is.
    pub spec: &'a RunnerSpec,
    /// The secret that lets it in; may be empty.
    pub token: &'a str,
    /// How it is.
    pub status: &'a RunnerStatus,
    /// What its engine is called, for people.
    pub engine_type: &'a str,
    /// Whether requests are to come through the connection, where a transport can also do without.
    pub tunnel: bool,
    /// Where the engine's HTTP server is on this machine, for gateways that dial back.
    pub http_port: u16,
}

impl Introduction<'_> {
    /// How many requests at once are asked for: the runner's slots, or `most`.
    pub fn streams(&self, most: u32) -> u32 {
        self.spec.slots.map_or(most, NonZeroU32::get)
    }
}

/// A gateway that has let the runner in.
pub struct Registered {
    /// The connection.
    pub uplink: Box<dyn Uplink>,
    /// Whether requests come through it. If not, the gateway dials back, and they are not counted here.
    pub carries_requests: bool,
    /// The longest time between two heartbeats that the gateway wants, if it said so.
    pub heartbeat_interval: Option<Duration>,
}

/// The connection to a gateway that has let the runner in. Dropping it cuts it and what is served through it.
#[async_trait]
pub trait Uplink: Send {
    /// Queues a message; it goes out before any data of requests. Never waits.
    ///
    /// # Errors
    ///
    /// The connection has ended, or the gateway does not take what it is told.
    fn say(&self, word: FromRunner) -> Result<(), Unsaid>;

    /// What the gateway says next. Cancel safe. Whatever the transport has to do for requests in this task
    /// happens while this is awaited.
    ///
    /// # Errors
    ///
    /// The connection has ended, and why. What was said before comes first.
    async fn hear(&mut self) -> Result<Heard, Failed>;

    /// Lets nothing new in. When what is served has gone out, [`hear`](Self::hear) says
    /// [`Heard::Finished`], once.
    fn finish(&mut self);

    /// Ends the connection in good order and waits for the gateway to do the same, for a moment.
    async fn close(&mut self);
}

/// What an [`Uplink`] hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The gateway says something.
    Word(FromGateway),
    /// All that was to be finished is.
    Finished,
}
