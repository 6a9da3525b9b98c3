//! The queues of control messages, between the driver and whoever speaks the protocol.

use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::PollSender;

use super::{CONTROL_QUEUE, MESSAGE_BYTES};

/// The control messages of one connection.
#[derive(Debug)]
pub struct Control {
    sender: ControlSender,
    inbound: mpsc::Receiver<Utf8Bytes>,
}

impl Control {
    /// The next text frame, or `None` when the connection has ended. Cancel safe.
    pub async fn recv(&mut self) -> Option<Utf8Bytes> {
        self.inbound.recv().await
    }

    /// A text frame that is here already, if there is one.
    pub fn try_recv(&mut self) -> Option<Utf8Bytes> {
        self.inbound.try_recv().ok()
    }

    /// A handle to send with.
    pub fn sender(&self) -> &ControlSender {
        &self.sender
    }
}

/// Sends control messages. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ControlSender(mpsc::Sender<Outbound>);

#[derive(Debug)]
pub(super) enum Outbound {
    Text(Utf8Bytes),
    Close,
}

/// Why a control message could not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The peer has not taken the last [`CONTROL_QUEUE`] messages: it is too slow, close the connection.
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
        self.queue(Outbound::Text(text.into()))
    }

    /// Ends the connection after the messages that are queued: sends a close frame and waits a moment for
    /// the peer's.
    pub fn close(&self) -> Result<(), SendError> {
        self.queue(Outbound::Close)
    }

    fn queue(&self, item: Outbound) -> Result<(), SendError> {
        self.0.try_send(item).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::TooSlow,
            mpsc::error::TrySendError::Closed(_) => SendError::Ended,
        })
    }
}

/// The driver's ends.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) outbound: mpsc::Receiver<Outbound>,
    pub(super) inbound: PollSender<Utf8Bytes>,
}

pub(super) fn pair() -> (Control, Ends) {
    let (outbound_in, outbound) = mpsc::channel(CONTROL_QUEUE);
    let (inbound_in, inbound) = mpsc::channel(CONTROL_QUEUE);
    let control = Control { sender: ControlSender(outbound_in), inbound };
    (control, Ends { outbound, inbound: PollSender::new(inbound_in) })
}
