//! Where a runner is: parsed and checked once, so that a request needs no look at it.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use http::HeaderValue;
use http::uri::{PathAndQuery, Uri};
use tokio::net::TcpStream;

/// An address that no link can be made to. Says which, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot link to {address:?}: {problem}")]
pub struct InvalidAddress {
    address: String,
    problem: &'static str,
}

impl InvalidAddress {
    fn new(address: &str, problem: &'static str) -> Self {
        // A password in the address must not reach a log.
        let address = match (address.find("://"), address.rfind('@')) {
            (Some(scheme), Some(at)) if scheme < at => {
                format!("{}…{}", &address[..scheme + 3], &address[at..])
            }
            (None, Some(at)) => format!("…{}", &address[at..]),
            _ => address.to_owned(),
        };
        Self { address, problem }
    }

    /// The address as it was given, without user name and password.
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// A checked address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    target: Target,
    host_header: HeaderValue,
    authority: String,
    /// Without the slash at its end; empty for most.
    prefix: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Ip(SocketAddr),
    /// Looked up anew for every connection: names move.
    Name(String, u16),
}

impl Address {
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidAddress> {
        let fail = |problem| InvalidAddress::new(text, problem);
        let uri: Uri = text.trim().parse().map_err(|_| fail("it is not a URL; write http://host:port"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(fail("TLS is not built in; use http://, or put a TLS proxy in between"));
            }
            Some(_) => return Err(fail("only http:// is understood")),
            None => return Err(fail("it has no scheme; write http://host:port")),
        }
        let Some(authority) = uri.authority() else { return Err(fail("it has no host")) };
        if authority.as_str().contains('@') {
            return Err(fail("it has a user name in it; give credentials as a header instead"));
        }
        if uri.query().is_some() {
            return Err(fail("it has a query, which a base address cannot have"));
        }
        let host = authority.host();
        if host.is_empty() {
            return Err(fail("it has no host"));
        }
        // `host:` and `host:99999` have no port that could be read, but a colon that says there is one.
        if authority.as_str().len() > host.len() && authority.port_u16().is_none() {
            return Err(fail("its port is not a number from 1 to 65535"));
        }
        let port = authority.port_u16().unwrap_or(80);
        if port == 0 {
            return Err(fail("its port is not a number from 1 to 65535"));
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let target = match bare.parse::<IpAddr>() {
            Ok(ip) => Target::Ip(SocketAddr::new(ip, port)),
            Err(_) if bare.len() < host.len() => return Err(fail("its IPv6 address cannot be read")),
            Err(_) => Target::Name(host.to_owned(), port),
        };
        let host_header =
            HeaderValue::from_str(authority.as_str()).map_err(|_| fail("its host has odd characters"))?;
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { target, host_header, authority: format!("{host}:{port}"), prefix })
    }

    /// `host:port`.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The same, but connections go to `to` instead of where its host leads. The header `host` stays.
    pub(crate) fn at(mut self, to: SocketAddr) -> Self {
        self.target = Target::Ip(to);
        self.authority = to.to_string();
        self
    }

    /// Host and port as they are looked up.
    pub(crate) fn host_and_port(&self) -> (String, u16) {
        match &self.target {
            Target::Ip(address) => (address.ip().to_string(), address.port()),
            Target::Name(host, port) => (host.clone(), *port),
        }
    }

    pub(crate) fn too_long(&self) -> InvalidAddress {
        InvalidAddress::new(&self.authority, "its host is too long for a runner's id")
    }

    pub(crate) fn host_header(&self) -> &HeaderValue {
        &self.host_header
    }

    /// The URI as it goes on the wire: path and query only, behind the prefix.
    pub(crate) fn wire_uri(&self, uri: Uri) -> Option<Uri> {
        if self.prefix.is_empty() {
            if uri.scheme().is_none() && uri.authority().is_none() {
                return Some(uri);
            }
            let path = uri.into_parts().path_and_query;
            return Some(Uri::from(path.unwrap_or(PathAndQuery::from_static("/"))));
        }
        let rest = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        PathAndQuery::try_from(format!("{}{rest}", self.prefix)).ok().map(Uri::from)
    }

    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        let stream = match &self.target {
            Target::Ip(address) => TcpStream::connect(address).await?,
            Target::Name(host, port) => TcpStream::connect((host.as_str(), *port)).await?,
        };
        // Small writes must not wait for a delayed ACK.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        Address::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn good_addresses() {
        for (text, shown, host) in [
            ("http://10.0.0.5:8000", "http://10.0.0.5:8000", "10.0.0.5:8000"),
            ("http://gpu.local", "http://gpu.local:80", "gpu.local"),
            ("http://[::1]:8000/", "http://[::1]:8000", "[::1]:8000"),
            (" http://h:1/prefix/ ", "http://h:1/prefix", "h:1"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.host_header(), host);
        }
    }

    #[test]
    fn bad_addresses_say_what_to_do() {
        for (text, word) in [
            ("https://h:1", "TLS"),
            ("ftp://h:1", "http://"),
            ("h:8000", "scheme"),
            ("10.0.0.5", "scheme"),
            ("http://h:0", "port"),
            ("http://h:99999", "port"),
            ("http://h/?a=1", "query"),
            ("", "URL"),
            ("http://", "URL"),
        ] {
            let problem = problem(text);
            assert!(problem.contains(word), "{text}: {problem}");
        }
    }

    #[test]
    fn secrets_stay_out_of_errors() {
        for text in ["http://user:secret@h:1", "https://user:secret@h:1", "user:secret@h"] {
            let problem = problem(text);
            assert!(!problem.contains("secret") && problem.contains('h'), "{problem}");
        }
    }

    #[test]
    fn the_prefix_goes_in_front() {
        let wire = |base: &str, uri: &'static str| {
            Address::parse(base).unwrap().wire_uri(Uri::from_static(uri)).unwrap().to_string()
        };
        assert_eq!(wire("http://h:1", "/v1/models?a=b"), "/v1/models?a=b");
        assert_eq!(wire("http://h:1", "http://elsewhere/v1/models?a"), "/v1/models?a");
        assert_eq!(wire("http://h:1/up/", "/v1/models?a=b"), "/up/v1/models?a=b");
    }
}
