//! Where a gateway is.

use std::fmt;
use std::str::FromStr;

use http::Uri;

use gateway_dial_in::agent::BadAddress;

use crate::protocol::DEFAULT_PATH;

/// A gateway's address, checked.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    host: String,
    port: u16,
    path_and_query: String,
}

impl Endpoint {
    /// Reads `ws://host[:port][/path]`; `http://` means the same.
    pub(super) fn parse(url: &str) -> Result<Self, BadAddress> {
        use BadAddress::{NotMine, Problem};
        let uri = Uri::from_str(url.trim())
            .map_err(|_| NotMine("it is not a URL; write it as ws://host:port/ws/runners"))?;
        match uri.scheme_str() {
            Some("ws" | "http") => {}
            Some("wss" | "https") => return Err(BadAddress::Tls),
            Some(_) => return Err(NotMine("its scheme is unknown; write ws://")),
            None => return Err(NotMine("it has no scheme; write ws:// in front")),
        }
        let authority = uri.authority().ok_or(Problem("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(Problem("it holds credentials; give the token with `token` and take them out"));
        }
        // A bracketed IPv6 address is connected to without its brackets.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(Problem("it names no host"));
        }
        // Not asked of the library, which takes a number that is too large for no number.
        let port = match authority.as_str().strip_prefix(authority.host()).unwrap_or_default() {
            "" => 80,
            port => port.trim_start_matches(':').parse().unwrap_or(0),
        };
        if port == 0 {
            return Err(Problem("its port is not a number from 1 to 65535"));
        }
        let path = if matches!(uri.path(), "" | "/") { DEFAULT_PATH } else { uri.path() };
        let path_and_query = match uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        Ok(Self { host, port, path_and_query })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The address as the WebSocket handshake wants it.
    pub(super) fn uri(&self) -> String {
        format!("ws://{}{}", Authority(self), self.path_and_query)
    }
}

struct Authority<'a>(&'a Endpoint);

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { host, port, .. } = self.0;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl fmt::Display for Endpoint {
    /// For logs: without the query, where some put secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        write!(f, "ws://{}{path}", Authority(self))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(url: &str) -> String {
        Endpoint::parse(url).unwrap().uri()
    }

    #[test]
    fn the_path_is_filled_in_only_if_there_is_none() {
        assert_eq!(uri("ws://gw:8080"), "ws://gw:8080/ws/runners");
        assert_eq!(uri("http://gw:8080/"), "ws://gw:8080/ws/runners");
        assert_eq!(uri("ws://gw/"), "ws://gw:80/ws/runners");
        assert_eq!(uri("ws://gw?x=1"), "ws://gw:80/ws/runners?x=1");
        assert_eq!(uri("ws://gw:8080/other?x=1"), "ws://gw:8080/other?x=1");
    }

    #[test]
    fn ipv6_addresses_are_dialled_without_brackets_and_written_with_them() {
        let endpoint = Endpoint::parse("ws://[::1]:9000/p").unwrap();
        assert_eq!((endpoint.host(), endpoint.port()), ("::1", 9000));
        assert_eq!(endpoint.uri(), "ws://[::1]:9000/p");
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        assert_eq!(Endpoint::parse("wss://gw"), Err(BadAddress::Tls));
        assert_eq!(Endpoint::parse("https://gw"), Err(BadAddress::Tls));
        for url in ["", "gw:8080", "gw", "ftp://gw", "ws://", "ws://user:pw@gw", "ws://gw:0", "ws://gw:99999"]
        {
            let bad = Endpoint::parse(url);
            assert!(matches!(bad, Err(BadAddress::Problem(_) | BadAddress::NotMine(_))), "{url:?}");
        }
    }

    #[test]
    fn logs_do_not_see_the_query() {
        let endpoint = Endpoint::parse("ws://gw/p?token=s").unwrap();
        assert_eq!(endpoint.to_string(), "ws://gw:80/p");
        assert_eq!(format!("{endpoint:?}"), "ws://gw:80/p");
    }
}
