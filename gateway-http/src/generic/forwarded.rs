//! What runners are told of where a request came from.

use std::fmt;
use std::net::IpAddr;

use gateway_core::PeerAddr;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Version, uri};
use ipnet::IpNet;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// What somebody who is not trusted could lie with.
const CLAIMS: [HeaderName; 8] = [
    FOR,
    PROTO,
    HOST,
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-real-ip"),
];

/// What runners are told of where a generic request came from: `x-forwarded-for`, `x-forwarded-proto`,
/// `x-forwarded-host` and `forwarded` (RFC 7239).
///
/// Whoever is trusted, such as a proxy in front, is believed in what it says of requests before it: the
/// address it comes from is added to its list, its protocol and host are kept. What anybody else says is
/// replaced. Addresses are known if the host puts [`PeerAddr`] into the extensions of requests; without it
/// nobody of a network is trusted, and `forwarded` says `unknown`.
///
/// ```
/// use gateway_http::Forwarding;
/// let forwarding = Forwarding::default().trust(["10.0.0.0/8", "::1"])?;
/// # let _ = forwarding;
/// # Ok::<(), gateway_http::InvalidNetwork>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Forwarding {
    networks: Vec<IpNet>,
    everybody: bool,
    https: bool,
}

impl Forwarding {
    /// Trusts whoever comes from one of these networks or addresses. Nobody unless set.
    ///
    /// # Errors
    ///
    /// One of them is neither.
    pub fn trust<T: AsRef<str>>(
        mut self,
        networks: impl IntoIterator<Item = T>,
    ) -> Result<Self, InvalidNetwork> {
        for network in networks {
            let text = network.as_ref().trim();
            let address = text.parse::<IpAddr>().map(IpNet::from).ok();
            let network = address.or_else(|| text.parse().ok());
            self.networks.push(network.ok_or_else(|| InvalidNetwork(text.to_owned()))?);
        }
        Ok(self)
    }

    /// Trusts everybody: for a gateway that only a proxy can reach.
    pub fn trust_everybody(mut self) -> Self {
        self.everybody = true;
        self
    }

    /// Says that the host serves over TLS. Unless said, requests came over `http` if their URI has no scheme.
    pub fn over_tls(mut self, https: bool) -> Self {
        self.https = https;
        self
    }

    fn trusts(&self, peer: Option<IpAddr>) -> bool {
        self.everybody || peer.is_some_and(|peer| self.networks.iter().any(|network| network.contains(&peer)))
    }

    /// Adds what is known of the request to the headers that its runner gets.
    pub(super) fn tell(&self, request: &Parts, headers: &mut HeaderMap) {
        // An IPv4 peer on a socket that takes both is written as IPv6.
        let peer = request.extensions.get::<PeerAddr>().map(|peer| peer.0.ip().to_canonical());
        if !self.trusts(peer) {
            CLAIMS.iter().for_each(|name| drop(headers.remove(name)));
        }
        let usual = if self.https { "https" } else { "http" };
        let proto = request.uri.scheme().map_or(usual, uri::Scheme::as_str);
        let host = host(request);
        let node = match peer {
            Some(IpAddr::V6(ip)) => format!("\"[{ip}]\""),
            Some(ip) => ip.to_string(),
            None => "unknown".to_owned(),
        };
        let quoted =
            host.as_ref().and_then(|host| host.to_str().ok()).filter(|host| !host.contains(['"', '\\']));
        let told = match quoted {
            Some(host) => format!("for={node};host=\"{host}\";proto={proto}"),
            None => format!("for={node};proto={proto}"),
        };
        append(headers, header::FORWARDED, &told);
        if let Some(peer) = peer {
            append(headers, FOR, &peer.to_string());
        }
        if let Ok(proto) = HeaderValue::from_str(proto) {
            headers.entry(PROTO).or_insert(proto);
        }
        if let Some(host) = host {
            headers.entry(HOST).or_insert(host);
        }
        append(headers, header::VIA, &format!("{} inference-gateway", version(request.version)));
    }
}

fn host(request: &Parts) -> Option<HeaderValue> {
    let named = request.headers.get(header::HOST).cloned();
    named.or_else(|| HeaderValue::from_str(request.uri.authority()?.as_str()).ok())
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

/// Adds to a list, which becomes one line: not every server reads more.
fn append(headers: &mut HeaderMap, name: HeaderName, item: &str) {
    let mut list: Vec<u8> = Vec::new();
    for value in headers.get_all(&name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(item.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&list) {
        headers.insert(name, value);
    }
}

/// Something that is no network and no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidNetwork(String);

impl fmt::Display for InvalidNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no network: write an address, or one with a prefix such as 10.0.0.0/8", self.0)
    }
}

impl std::error::Error for InvalidNetwork {}
