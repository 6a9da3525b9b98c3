//! The control messages, between the driver and whoever speaks the protocol.

use std::fmt;
use std::future::poll_fn;

use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::MESSAGE_BYTES;
use super::pipe::{Shared, lock};

/// The control messages of one connection.
#[derive(Debug)]
pub struct Control {
    sender: ControlSender,
}

impl Control {
    pub(super) fn new(pipe: Shared) -> Self {
        Self { sender: ControlSender(pipe) }
    }

    /// The next text frame, or `None` when the connection has ended. Cancel safe.
    pub async fn recv(&mut self) -> Option<Utf8Bytes> {
        poll_fn(|cx| lock(&self.sender.0).poll_heard(cx)).await
    }

    /// A text frame that is here already, if there is one.
    pub fn try_recv(&mut self) -> Option<Utf8Bytes> {
        lock(&self.sender.0).heard()
    }

    /// A handle to send with.
    pub fn sender(&self) -> &ControlSender {
        &self.sender
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        lock(&self.sender.0).deafen();
    }
}

/// Sends control messages. Cheap to clone.
#[derive(Clone)]
pub struct ControlSender(Shared);

#[derive(Debug)]
pub(super) enum Outbound {
    Text(Utf8Bytes),
    Close,
}

/// Why a control message could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The peer has not taken the last [`CONTROL_QUEUE`](super::CONTROL_QUEUE) messages: it is too slow, close the
    /// connection.
    #[error("the peer does not take its control messages")]
    TooSlow,
    /// The connection has ended.
    #[error("the connection has ended")]
    Ended,
    /// The message is longer than [`MESSAGE_BYTES`].
    #[error("a control message of {0} bytes is too long")]
    TooLong(usize),
}

impl ControlSender {
    /// Queues a text frame. It goes out before any data that was not yet handed to the WebSocket.
    pub fn send(&self, text: impl Into<String>) -> Result<(), SendError> {
        let text = text.into();
        if text.len() > MESSAGE_BYTES {
            return Err(SendError::TooLong(text.len()));
        }
        lock(&self.0).say(Outbound::Text(text.into()))
    }

    /// Ends the connection after the messages that are queued: sends a close frame and waits a moment for
    /// the peer's.
    pub fn close(&self) -> Result<(), SendError> {
        lock(&self.0).say(Outbound::Close)
    }
}

impl fmt::Debug for ControlSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlSender").finish_non_exhaustive()
    }
}
