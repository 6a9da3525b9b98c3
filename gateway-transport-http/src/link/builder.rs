use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::HttpLink;
use super::pool::{Limits, Pool};
use crate::address::{Address, InvalidAddress};

/// Settings of an [`HttpLink`].
///
/// ```
/// use std::time::Duration;
/// use gateway_transport_http::HttpLink;
///
/// let link = HttpLink::builder("http://10.0.0.5:8000")
///     .connect_timeout(Duration::from_secs(1))
///     .max_idle(32)
///     .build()?;
/// # let _ = link;
/// # Ok::<(), gateway_transport_http::InvalidAddress>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct HttpLinkBuilder {
    address: String,
    transport: &'static str,
    headers: Vec<(HeaderName, HeaderValue)>,
    limits: Limits,
}

impl HttpLinkBuilder {
    pub(super) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            transport: "http",
            headers: Vec::new(),
            limits: Limits {
                connect_timeout: Duration::from_secs(5),
                max_connections: 4096,
                max_idle: 256,
                idle_timeout: Duration::from_secs(60),
            },
        }
    }

    /// The transport's name in logs and the admin list. Default: `http`.
    pub fn transport_name(mut self, name: &'static str) -> Self {
        self.transport = name;
        self
    }

    /// How long a connection may take to come up, name look-up included. Default: 5 s.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.limits.connect_timeout = limit;
        self
    }

    /// The most connections at once; a request beyond is [`LinkError::not_sent`]. Default: 4,096.
    ///
    /// [`LinkError::not_sent`]: gateway_core::LinkError::not_sent
    pub fn max_connections(mut self, count: usize) -> Self {
        self.limits.max_connections = count.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// The most connections that are kept for later; 0 makes a new one for every request. Default: 256.
    pub fn max_idle(mut self, count: usize) -> Self {
        self.limits.max_idle = count;
        self
    }

    /// How long a connection is kept unused. Default: 60 s.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        // A year is as good as for ever, and can be added to a clock.
        self.limits.idle_timeout = limit.min(Duration::from_secs(365 * 86_400));
        self
    }

    /// A header for every request, such as the engine's own credentials. It takes the place of the
    /// request's own header of that name.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value));
        self
    }

    /// Makes the link. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// If the address is not a plain `http://` URL.
    pub fn build(self) -> Result<HttpLink, InvalidAddress> {
        let address = Address::parse(&self.address)?;
        Ok(self.build_for(address))
    }

    pub(crate) fn build_for(self, address: Address) -> HttpLink {
        let Self { transport, headers, limits, .. } = self;
        HttpLink { address, transport, headers, pool: Pool::new(limits) }
    }
}

impl fmt::Debug for HttpLinkBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither headers nor the unchecked address: there may be credentials in both.
        f.debug_struct("HttpLinkBuilder")
            .field("transport", &self.transport)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
