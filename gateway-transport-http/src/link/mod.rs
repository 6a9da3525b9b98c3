//! The link to one HTTP address, and its pool of connections.

mod alarm;
mod answer;
mod builder;
mod connection;
mod outgoing;
mod pool;
mod send;
mod spare;
mod upgraded;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use gateway_core::{LinkAbilities, LinkDescription, LinkRequest, RunnerLink};
use http::{HeaderName, HeaderValue};

pub use builder::HttpLinkBuilder;

use crate::address::{Address, InvalidAddress};
use pool::Pool;
pub(crate) use send::LinkFuture;

/// The link to a runner that has an HTTP address.
///
/// It keeps connections of its own (HTTP/1.1, `TCP_NODELAY`) and reuses the one that was used last. One
/// that the runner closed while it was idle is never an error: the request goes out again on a new one, unless
/// it is [not to be repeated](gateway_core::NotRepeatable) and may have been seen. One
/// that fails more than a second after the request went out was not idle, and is an error.
///
/// Bounds: 4,096 connections at once, of which 256 may be idle for up to 60 s each; 5 s to connect. All
/// can be set, see [`HttpLink::builder`]. Of an answer that nobody reads, at most about 400 KiB are read
/// ahead; then the runner has to wait.
///
/// A request that asks for another protocol ([`UpgradeTo`](gateway_core::UpgradeTo)) takes its connection with
/// it, which keeps its place among the most that there may be.
///
/// Connections end when the link is [closed](RunnerLink::close) or dropped, those in use too.
///
/// ```
/// use gateway_core::RunnerLink;
/// use gateway_transport_http::HttpLink;
///
/// let link = HttpLink::new("http://10.0.0.5:8000")?;
/// assert_eq!(link.describe().address.as_deref(), Some("http://10.0.0.5:8000"));
/// # Ok::<(), gateway_transport_http::InvalidAddress>(())
/// ```
pub struct HttpLink {
    address: Address,
    transport: &'static str,
    /// Set on every request, in place of what the request has.
    headers: Vec<(HeaderName, HeaderValue)>,
    pool: Arc<Pool>,
}

impl HttpLink {
    /// A link to `address`, such as `http://10.0.0.5:8000`, with every default. A path in it goes in front
    /// of every request's path. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// If the address is not a plain `http://` URL.
    pub fn new(address: impl AsRef<str>) -> Result<Self, InvalidAddress> {
        Self::builder(address).build()
    }

    /// A link to `address` with settings of its own.
    pub fn builder(address: impl AsRef<str>) -> HttpLinkBuilder {
        HttpLinkBuilder::new(address.as_ref())
    }
}

#[async_trait]
impl RunnerLink for HttpLink {
    fn describe(&self) -> LinkDescription {
        LinkDescription { transport: self.transport, address: Some(self.address.to_string()) }
    }

    fn send<'s, 'f>(&'s self, request: LinkRequest) -> LinkFuture<'f>
    where
        's: 'f,
    {
        self.exchange(request)
    }

    fn abilities(&self) -> LinkAbilities {
        LinkAbilities::NONE.with_upgrades()
    }

    fn close(&self) {
        self.pool.close();
    }
}

impl Drop for HttpLink {
    fn drop(&mut self) {
        self.pool.close();
    }
}

impl fmt::Debug for HttpLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the headers: one of them may be a credential.
        f.debug_struct("HttpLink")
            .field("transport", &self.transport)
            .field("address", &format_args!("{}", self.address))
            .finish_non_exhaustive()
    }
}
