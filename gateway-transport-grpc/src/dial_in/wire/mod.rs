//! Frames as they stand in a gRPC call, and what they mean.

mod heads;
mod messages;
mod outgoing;
mod status;

pub(crate) use heads::{request_from, request_to, response_from, response_to, trailers_from, trailers_to};
pub(crate) use messages::{Messages, ReadError};
pub(crate) use outgoing::{Outgoing, encode, encode_data};
pub(crate) use status::{register_from, register_to, status_from, status_to};

/// Longest frame, in bytes.
pub(crate) const FRAME_BYTES: usize = 1024 * 1024;

/// Longest head of a request or an answer, in bytes, as HTTP/2 counts it.
pub(crate) const HEAD_BYTES: usize = 64 * 1024;

/// The call.
pub(crate) const PATH: &str = "/inference_gateway.runner.v1.RunnerGateway/Connect";
