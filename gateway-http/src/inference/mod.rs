//! Requests that runners answer.

mod fields;
mod forward;
mod headers;
mod read;
mod sse;

pub(crate) use forward::forward;
pub(crate) use read::{BodyLimits, gather};
pub(crate) use sse::SseGuard;
