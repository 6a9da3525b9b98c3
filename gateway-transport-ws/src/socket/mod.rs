//! One WebSocket, two kinds of frames: text frames are the control protocol, binary frames a byte stream.
//!
//! [`split`] takes a WebSocket after its registration and gives three parts: [`Control`], where messages
//! are sent and received; [`TunnelIo`], the byte stream, for an HTTP/2 client or server; and the
//! [`Driver`], the future that owns the socket and moves everything. The driver and what uses the byte
//! stream are meant to run in one task, with [`Driver::beside`]: then a chunk wakes one task, once.
//!
//! # What is bounded, and why nothing can lock up
//!
//! - Messages wait in queues of [`CONTROL_QUEUE`] in either direction. If the peer does not take ours, it
//!   is too slow and [`ControlSender::send`] fails; if we do not take the peer's, the socket is not read.
//! - The byte stream outward holds at most [`OUTBOUND_BYTES`], sent in frames of at most [`FRAME_BYTES`];
//!   before every frame the control queue is asked first. Below it, the WebSocket's own buffer holds at
//!   most [`FRAME_BYTES`] and one frame more. So that much data, and what the kernel has, can stand before
//!   a control message; what waits in HTTP/2's windows cannot.
//! - The byte stream inward holds at most [`INBOUND_BYTES`] and one frame more; above that the socket is
//!   not read, and control messages behind it wait too. HTTP/2 never lets it come to that for
//!   long: its connection reads everything that is there whenever it is polled, however slow the readers
//!   of its streams are, since they are held back by their streams' windows and not by the byte stream.
//!   It stops reading only while it cannot write answers that it owes at once (acknowledged settings,
//!   pings, refused streams), which means that the peer does not read; and we owe no such answers in
//!   number, for neither side sends pings or opens more streams than are allowed.
//! - A runner that fills the byte stream before the gateway's first request, when nobody reads it yet, stops its own
//!   control messages with it, and is taken out for its silence.
//! - A peer that stands still altogether is ended by the heartbeat's timeout, not here.

mod control;
mod driver;
mod pipe;

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};

pub use control::{Control, ControlSender, SendError};
pub use driver::{Beside, Driver, SocketError};
pub use pipe::TunnelIo;

/// Most control messages that wait in one direction.
pub const CONTROL_QUEUE: usize = 64;

/// Longest message, in bytes, of either kind.
pub const MESSAGE_BYTES: usize = 1024 * 1024;

/// Most bytes of the byte stream that wait to be sent.
pub const OUTBOUND_BYTES: usize = 64 * 1024;

/// Most bytes of the byte stream that have come and were not yet read, beside one frame.
pub const INBOUND_BYTES: usize = 256 * 1024;

/// Longest binary frame that is sent, in bytes: one HTTP/2 frame of the default size and its head fit into
/// two, and a control message waits for no more than this.
pub const FRAME_BYTES: usize = 16 * 1024;

/// Most bytes that a gateway reads of a connection at once: some fifteen chunks of text with what stands around them.
const ACCEPTOR_READ_BYTES: usize = 4 * 1024;

/// The settings for both ends: every buffer has a bound.
///
/// The read buffer is as small as a full frame because all of its free space is cleared before each read.
pub fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(FRAME_BYTES)
        .write_buffer_size(FRAME_BYTES)
        // The longest control message and what stands before it; data is held back long before.
        .max_write_buffer_size(2 * MESSAGE_BYTES)
        .max_message_size(Some(MESSAGE_BYTES))
        .max_frame_size(Some(MESSAGE_BYTES))
}

/// The same with a smaller read buffer: a gateway holds one for each of its runners, most of which are idle.
pub(crate) fn acceptor_config() -> WebSocketConfig {
    websocket_config().read_buffer_size(ACCEPTOR_READ_BYTES)
}

/// What a peer is told whose frames cannot be read; `None` if the connection failed otherwise. Of what it sent nothing
/// is repeated.
pub(crate) fn complaint(error: &Error) -> Option<CloseFrame> {
    let (code, reason) = match error {
        Error::Protocol(_) => (CloseCode::Protocol, "a frame breaks the rules of the WebSocket protocol"),
        Error::Utf8(_) => (CloseCode::Invalid, "a text frame is not UTF-8"),
        Error::Capacity(_) => (CloseCode::Size, "a message is longer than 1 MiB"),
        _ => return None,
    };
    Some(CloseFrame { code, reason: reason.into() })
}

/// Takes a WebSocket apart. Nothing moves until the driver is polled.
///
/// Drop the byte stream if no tunnel was granted: binary frames are then read and dropped.
pub fn split<S>(socket: WebSocketStream<S>) -> (Control, TunnelIo, Driver<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let pipe = Arc::new(Mutex::new(pipe::Pipe::default()));
    (Control::new(pipe.clone()), TunnelIo::new(pipe.clone()), Driver::new(socket, pipe))
}
