//! What a link keeps to.

use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use http::uri::Authority;

use crate::address::GrpcAddress;
use crate::contract::Dialect;
use crate::translate::PromptTemplate;

pub(super) struct Settings {
    pub(super) address: GrpcAddress,
    pub(super) authority: Authority,
    /// The whole header, never shown.
    pub(super) token: Option<HeaderValue>,
    /// `None`: it is found out.
    pub(super) dialect: Option<Dialect>,
    pub(super) template: PromptTemplate,
    /// What is asked for unless a request says otherwise; empty: none.
    pub(super) adapter: String,
    pub(super) message_limit: usize,
    pub(super) max_streams: u32,
    pub(super) stream_window: u32,
    pub(super) connect_timeout: Duration,
    pub(super) question_timeout: Duration,
    pub(super) keepalive: Duration,
    pub(super) keepalive_timeout: Duration,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the token.
        f.debug_struct("Settings").field("address", &self.address).finish_non_exhaustive()
    }
}
