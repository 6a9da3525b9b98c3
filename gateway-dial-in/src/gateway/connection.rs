//! What a transport gives of each connection.

use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;

use crate::{FromGateway, FromRunner, Unsaid};

/// One runner's connection after its registration, as its transport keeps it. Dropping it cuts it.
#[async_trait]
pub trait Connection: Send {
    /// What the runner says next, or `None` when the connection has ended. Whatever the transport has to do for
    /// requests in this task happens here.
    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<Option<FromRunner>>;

    /// A handle to speak with.
    fn voice(&self) -> Arc<dyn Voice>;

    /// Ends the connection in good order: what was said before goes out first. Requests in flight fail. Returns
    /// when the peer knows; whoever calls it bounds how long that may take.
    async fn close(&mut self, why: End);
}

/// Speaks to the runner.
pub trait Voice: Send + Sync + 'static {
    /// Queues a message; it goes out before any data of requests. Never waits.
    ///
    /// # Errors
    ///
    /// The connection has ended, or the runner does not take what it is told.
    fn say(&self, word: FromGateway) -> Result<(), Unsaid>;
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The transport says that it has ended.
    Disconnected,
    /// The runner was silent for too long.
    Silent,
    /// The runner does not take its messages.
    TooSlow,
    /// The registration has left the registry: replaced by a newer one, or removed.
    Replaced,
    /// The link was told to close.
    Closed,
    /// The source ends.
    Shutdown,
}
