//! Where a gateway is.

use std::fmt;
use std::str::FromStr;

use gateway_dial_in::agent::BadAddress;
use http::Uri;

/// Where gateways listen for gRPC unless told otherwise.
const DEFAULT_PORT: u16 = 50050;

/// A gateway's address, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Tcp { host: String, port: u16 },
    Unix(String),
}

impl Address {
    /// Reads `grpc://host[:port]`, `unix:PATH` or `unix:///PATH`.
    pub(super) fn parse(address: &str) -> Result<Self, BadAddress> {
        use BadAddress::{NotMine, Problem};
        let address = address.trim();
        if let Some(path) = address.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(Problem("it names no socket; write unix:/path/to/socket"));
            }
            return Ok(Self::Unix(path.to_owned()));
        }
        let uri = Uri::from_str(address)
            .map_err(|_| NotMine("it is no address; write it as grpc://host:port or unix:PATH"))?;
        match uri.scheme_str() {
            Some("grpc") => {}
            Some("grpcs") => return Err(BadAddress::Tls),
            Some(_) => return Err(NotMine("its scheme is unknown; write grpc://")),
            None => return Err(NotMine("it has no scheme; write grpc:// in front")),
        }
        let authority = uri.authority().ok_or(Problem("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(Problem("it holds credentials; give the token with `token` and take them out"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(Problem("it has a path, which gRPC has no use for; write grpc://host:port"));
        }
        // A bracketed IPv6 address is connected to without its brackets.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(Problem("it names no host"));
        }
        // Not asked of the library, which takes a number that is too large for no number.
        let port = match authority.as_str().strip_prefix(authority.host()).unwrap_or_default() {
            "" => DEFAULT_PORT,
            port => port.trim_start_matches(':').parse().unwrap_or(0),
        };
        if port == 0 {
            return Err(Problem("its port is not a number from 1 to 65535"));
        }
        Ok(Self::Tcp { host, port })
    }

    /// The authority that HTTP/2 wants.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { .. } => write!(f, "grpc://{}", self.authority()),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let shown = |address: &str| Address::parse(address).unwrap().to_string();
        assert_eq!(shown("grpc://gw"), "grpc://gw:50050");
        assert_eq!(shown("grpc://gw:1/"), "grpc://gw:1");
        assert_eq!(shown("grpc://[::1]:9"), "grpc://[::1]:9");
        assert_eq!(shown("unix:/run/x.sock"), "unix:/run/x.sock");
        assert_eq!(shown("unix:///run/x.sock"), "unix:/run/x.sock");
        assert_eq!(shown("unix:x.sock"), "unix:x.sock");
        assert_eq!(Address::parse("grpc://[::1]:9"), Ok(Address::Tcp { host: "::1".to_owned(), port: 9 }));
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        assert_eq!(Address::parse("grpcs://gw"), Err(BadAddress::Tls));
        for address in ["ws://gw", "http://gw", "gw:50050", "gw", ""] {
            assert!(matches!(Address::parse(address), Err(BadAddress::NotMine(_))), "{address:?}");
        }
        for address in
            ["grpc://u:p@gw", "grpc://gw:0", "grpc://gw:99999", "grpc://gw/x", "grpc://gw?t=1", "unix:"]
        {
            assert!(matches!(Address::parse(address), Err(BadAddress::Problem(_))), "{address:?}");
        }
    }
}
