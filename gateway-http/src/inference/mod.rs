//! Requests that runners answer.

mod asked;
mod awaited;
mod features;
mod fields;
mod forward;
mod hash;
mod plain;
mod prompt;
mod read;
mod reason;
mod sse;
pub(crate) mod work;

pub(crate) use asked::Asked;
pub(crate) use awaited::{Awaited, Heard};
pub(crate) use forward::forward;
pub use prompt::PromptHashing;
pub(crate) use read::{BodyLimits, gather};
pub(crate) use reason::Reasons;
pub(crate) use sse::SseGuard;
