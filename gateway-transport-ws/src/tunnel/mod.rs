//! The tunnel: HTTP/2 with turned roles over the byte stream of a runner's own connection.
//!
//! The gateway is the HTTP/2 client ([`TunnelLink`]), the runner the server ([`serve`]). What multiplexes,
//! holds back and cancels is HTTP/2 itself; here are its settings and the way into the gateway's traits.
//!
//! # Windows
//!
//! Every stream has a window of [`STREAM_WINDOW`] bytes in either direction, given back as chunks are
//! handed on: a reader that stops holds up its own stream, with that much in memory, and no other. The
//! connection's window is never the one that runs out: it is at least the sum of its streams' windows.
//! There are never more streams than were agreed in the registration.

mod answer;
mod begin;
mod engine_body;
mod link;
mod serve;
mod upload;

pub use begin::TunnelConnection;
pub use link::{TunnelLink, connect};
pub use serve::serve;

/// Bytes that may be on their way on one stream before the reader has taken any: [`RFC 9113`]'s default,
/// which is seconds of generated text and costs little when a reader stalls.
///
/// [`RFC 9113`]: https://www.rfc-editor.org/rfc/rfc9113#section-6.9.2
pub const STREAM_WINDOW: u32 = 65_535;

/// The most streams on one tunnel, whatever a runner asks for: bounds its memory here to this times
/// [`STREAM_WINDOW`], and some more for the small frames of a stream that nobody reads.
pub const MAX_STREAMS: u32 = 1024;

/// Longest head of a request or an answer, in bytes, as HTTP/2 counts it.
const MAX_HEAD_BYTES: u32 = 64 * 1024;

/// Says in an answer of the runner that its engine failed and how, so that the gateway can do what it
/// would do had it spoken to the engine itself.
const FAULT_HEADER: http::HeaderName = http::HeaderName::from_static("x-runner-fault");

/// [`FAULT_HEADER`]: the engine saw nothing of the request.
const UNREACHABLE: &str = "unreachable";

/// [`FAULT_HEADER`]: the engine's connection failed after it may have seen the request.
const LOST: &str = "lost";
