use std::fmt;
use std::time::Duration;

use http::HeaderValue;

use super::GrpcLink;
use super::dial::Dialler;
use super::settings::Settings;
use crate::address::{GrpcAddress, InvalidGrpcAddress};
use crate::contract::Dialect;
use crate::translate::PromptTemplate;

/// Why no link can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGrpcLink {
    /// Its address.
    #[error(transparent)]
    Address(#[from] InvalidGrpcAddress),
    /// Its token.
    #[error("the token for the worker at {address} has characters that no header can have")]
    Token {
        /// Where it is.
        address: String,
    },
}

/// Settings of a [`GrpcLink`].
///
/// ```
/// use std::time::Duration;
/// use gateway_transport_grpc::{Dialect, GrpcLink, PromptTemplate};
///
/// let link = GrpcLink::builder("10.0.0.5:50051")
///     .token("s3cret")
///     .dialect(Dialect::Packaged)
///     .template(PromptTemplate::Verbatim)
///     .connect_timeout(Duration::from_secs(1))
///     .build()?;
/// # let _ = link;
/// # Ok::<(), gateway_transport_grpc::InvalidGrpcLink>(())
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct GrpcLinkBuilder {
    address: String,
    token: Option<String>,
    dialect: Option<Dialect>,
    template: Option<PromptTemplate>,
    adapter: Option<String>,
    message_limit: usize,
    max_streams: u32,
    stream_window: u32,
    connect_timeout: Duration,
    question_timeout: Duration,
    keepalive: (Duration, Duration),
}

impl GrpcLink {
    /// The longest message in either direction unless [set](GrpcLinkBuilder::message_limit): 100 MiB, as the
    /// contract's own programs have it.
    pub const MESSAGE_LIMIT: usize = 100 * 1024 * 1024;
    /// The most calls at once unless [set](GrpcLinkBuilder::max_streams).
    pub const MAX_STREAMS: u32 = 1024;
    /// Bytes that may be on their way on one stream before its reader has taken any, unless
    /// [set](GrpcLinkBuilder::stream_window): [RFC 9113]'s default, which is seconds of generated text and costs
    /// little when a reader stalls.
    ///
    /// [RFC 9113]: https://www.rfc-editor.org/rfc/rfc9113#section-6.9.2
    pub const STREAM_WINDOW: u32 = 65_535;
    /// How long a connection may take to come up unless [set](GrpcLinkBuilder::connect_timeout), as of the HTTP
    /// link.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// How long Health, `list_models` and `ping` may take unless [set](GrpcLinkBuilder::question_timeout).
    pub const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
    /// After how long a silence a connection with calls on it is pinged unless [set](GrpcLinkBuilder::keepalive), as the
    /// contract's own programs do.
    pub const KEEPALIVE: Duration = Duration::from_secs(30);
    /// How long a ping may take, as the contract's own programs have it.
    pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
}

impl GrpcLinkBuilder {
    pub(super) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            token: None,
            dialect: None,
            template: None,
            adapter: None,
            message_limit: GrpcLink::MESSAGE_LIMIT,
            max_streams: GrpcLink::MAX_STREAMS,
            stream_window: GrpcLink::STREAM_WINDOW,
            connect_timeout: GrpcLink::CONNECT_TIMEOUT,
            question_timeout: GrpcLink::QUESTION_TIMEOUT,
            keepalive: (GrpcLink::KEEPALIVE, GrpcLink::KEEPALIVE_TIMEOUT),
        }
    }

    /// Sends `authorization: Bearer TOKEN` with every call. Default: nothing is sent.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Says which dialect the worker speaks. Default: it is found out on every new connection.
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = Some(dialect);
        self
    }

    /// How messages become a prompt. Default: [`PromptTemplate::Document`].
    pub fn template(mut self, template: PromptTemplate) -> Self {
        self.template = Some(template);
        self
    }

    /// The adapter for requests that do not name one in `adapter`. Default: none.
    pub fn adapter(mut self, adapter: impl Into<String>) -> Self {
        self.adapter = Some(adapter.into());
        self
    }

    /// The longest message in either direction in bytes, from 1 to 2³² − 1. It bounds a request's body, an answer
    /// that is not streamed, and what one call may hold in memory. Default: [`GrpcLink::MESSAGE_LIMIT`].
    pub fn message_limit(mut self, bytes: usize) -> Self {
        self.message_limit = bytes.clamp(1, u32::MAX as usize);
        self
    }

    /// The most requests at once, from 1 to 65,536; one beyond is [`LinkError::not_sent`], as is one beyond what the
    /// worker allows, of which four streams are kept for questions. Default: [`GrpcLink::MAX_STREAMS`].
    ///
    /// [`LinkError::not_sent`]: gateway_core::LinkError::not_sent
    pub fn max_streams(mut self, count: u32) -> Self {
        self.max_streams = count.clamp(1, 65_536);
        self
    }

    /// Bytes that may be on their way on one stream before its reader has taken any, from 1 KiB to 16 MiB.
    /// Default: [`GrpcLink::STREAM_WINDOW`]. Streams times window must stay below 2 GiB for one stream never to
    /// hold up another.
    pub fn stream_window(mut self, bytes: u32) -> Self {
        self.stream_window = bytes.clamp(1024, 16 * 1024 * 1024);
        self
    }

    /// How long a connection may take to come up, name look-up included. Default: [`GrpcLink::CONNECT_TIMEOUT`].
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long Health, `list_models` and `ping` may take. Default: [`GrpcLink::QUESTION_TIMEOUT`].
    pub fn question_timeout(mut self, limit: Duration) -> Self {
        self.question_timeout = limit;
        self
    }

    /// How long nothing may be heard on a connection with calls on it before it is pinged, and how long a ping may take
    /// before the connection is given up. After three pings in a row the next come five minutes apart, because
    /// gRPC's servers close a connection for more; the interval doubles for a worker that finds it too often even so.
    /// Default: [`GrpcLink::KEEPALIVE`]
    /// and [`GrpcLink::KEEPALIVE_TIMEOUT`].
    pub fn keepalive(mut self, interval: Duration, limit: Duration) -> Self {
        self.keepalive = (interval.max(Duration::from_millis(1)), limit);
        self
    }

    /// What this one leaves open is taken from `other`.
    pub(crate) fn or(mut self, other: &Shared) -> Self {
        self.token = self.token.or_else(|| other.token.clone());
        self.dialect = self.dialect.or(other.dialect);
        self.template = self.template.or_else(|| other.template.clone());
        self.adapter = self.adapter.or_else(|| other.adapter.clone());
        self
    }

    /// Makes the link. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// If the address or the token cannot be used.
    pub fn build(self) -> Result<GrpcLink, InvalidGrpcLink> {
        let address = GrpcAddress::parse(&self.address)?;
        self.build_for(address)
    }

    pub(crate) fn build_for(self, address: GrpcAddress) -> Result<GrpcLink, InvalidGrpcLink> {
        let unfit = || InvalidGrpcLink::Token { address: address.to_string() };
        let token = match self.token {
            Some(token) => {
                let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| unfit())?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        // Checked when the address was.
        let authority = address.authority().parse();
        let authority = authority.unwrap_or_else(|_| http::uri::Authority::from_static("localhost"));
        let (keepalive, keepalive_timeout) = self.keepalive;
        let dialler = Dialler::new(Settings {
            address,
            authority,
            token,
            dialect: self.dialect,
            template: self.template.unwrap_or_default(),
            adapter: self.adapter.unwrap_or_default(),
            message_limit: self.message_limit,
            max_streams: self.max_streams,
            stream_window: self.stream_window,
            connect_timeout: self.connect_timeout,
            question_timeout: self.question_timeout,
            keepalive,
            keepalive_timeout,
        });
        Ok(GrpcLink { dialler })
    }
}

/// What holds for several links.
#[derive(Clone, Default)]
pub(crate) struct Shared {
    pub(crate) token: Option<String>,
    pub(crate) dialect: Option<Dialect>,
    pub(crate) template: Option<PromptTemplate>,
    pub(crate) adapter: Option<String>,
}

impl fmt::Debug for GrpcLinkBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the token nor the unchecked address: there may be credentials in both.
        f.debug_struct("GrpcLinkBuilder").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}
