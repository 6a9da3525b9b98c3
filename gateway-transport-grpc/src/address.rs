//! Where a worker is: parsed and checked once.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use http::uri::Authority;
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

/// An address that no link can be made to. Says which, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot link to {address:?}: {problem}")]
pub struct InvalidGrpcAddress {
    address: String,
    problem: &'static str,
}

impl InvalidGrpcAddress {
    fn new(address: &str, problem: &'static str) -> Self {
        // A password in the address must not reach a log.
        let from = address.find("://").map_or(0, |scheme| scheme + 3);
        let address = match address.rfind('@') {
            Some(at) if from <= at => format!("{}…{}", &address[..from], &address[at..]),
            _ => address.to_owned(),
        };
        Self { address, problem }
    }

    /// The address as it was given, without user name and password.
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// Where a worker is: `host:port`, `http://host:port`, `unix:PATH` or `unix:///PATH`.
///
/// ```
/// use gateway_transport_grpc::GrpcAddress;
///
/// for (given, shown) in [
///     ("127.0.0.1:50051", "127.0.0.1:50051"),
///     ("http://[::1]:50051", "[::1]:50051"),
///     ("unix:///run/cy_sidecar.sock", "unix:/run/cy_sidecar.sock"),
///     ("unix:sidecar.sock", "unix:sidecar.sock"),
/// ] {
///     assert_eq!(given.parse::<GrpcAddress>()?.to_string(), shown);
/// }
/// assert!("https://10.0.0.5:50051".parse::<GrpcAddress>().is_err());
/// # Ok::<(), gateway_transport_grpc::InvalidGrpcAddress>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrpcAddress {
    target: Target,
    /// What the other side is called in requests.
    authority: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Target {
    Ip(SocketAddr),
    /// Looked up anew for every connection: names move.
    Name(String, u16),
    Unix(PathBuf),
}

impl GrpcAddress {
    /// Reads an address.
    ///
    /// # Errors
    ///
    /// If it has none of the forms above. TLS is not built in.
    pub fn parse(text: impl AsRef<str>) -> Result<Self, InvalidGrpcAddress> {
        let text = text.as_ref().trim();
        let fail = |problem| InvalidGrpcAddress::new(text, problem);
        if let Some(path) = text.strip_prefix("unix:") {
            return Self::unix(path).map_err(fail);
        }
        let rest = match text.split_once("://") {
            None => text,
            Some(("http", rest)) => rest,
            Some(("https", _)) => {
                return Err(fail("TLS is not built in; use host:port, or put a TLS proxy in between"));
            }
            Some(_) => return Err(fail("write host:port, http://host:port or unix:PATH")),
        };
        if rest.contains('@') {
            return Err(fail("it has a user name in it; give credentials as a token instead"));
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(fail("a gRPC service has no path; write host:port, or unix:PATH for a socket"));
        }
        let authority: Authority =
            rest.parse().map_err(|_| fail("write host:port, such as 10.0.0.5:50051"))?;
        let host = authority.host();
        if host.is_empty() {
            return Err(fail("it has no host"));
        }
        if authority.as_str().len() == host.len() {
            return Err(fail("it has no port; write host:port, such as 10.0.0.5:50051"));
        }
        let port = authority.port_u16().filter(|port| *port > 0);
        let port = port.ok_or_else(|| fail("its port is not a number from 1 to 65535"))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let target = match bare.parse::<IpAddr>() {
            Ok(ip) => Target::Ip(SocketAddr::new(ip, port)),
            Err(_) if bare.len() < host.len() => return Err(fail("its IPv6 address cannot be read")),
            Err(_) => Target::Name(host.to_owned(), port),
        };
        Ok(Self { target, authority: format!("{host}:{port}") })
    }

    fn unix(path: &str) -> Result<Self, &'static str> {
        // With an authority part, as URLs have it, that part must be empty.
        let path = match path.strip_prefix("//") {
            Some(path) if path.starts_with('/') => path,
            Some(_) => return Err("a socket has no host; write unix:///PATH or unix:PATH"),
            None => path,
        };
        if path.is_empty() {
            return Err("it has no path; write unix:///run/worker.sock");
        }
        // What sockaddr_un has room for, without the zero at its end.
        if path.len() > 107 {
            return Err("its path is longer than a socket's may be (107 bytes)");
        }
        if path.contains('\0') {
            return Err("its path has a zero byte in it");
        }
        if cfg!(not(unix)) {
            return Err("there are no Unix sockets on this system; use host:port");
        }
        Ok(Self { target: Target::Unix(path.into()), authority: "localhost".to_owned() })
    }

    /// The socket's path, if it is a Unix socket.
    pub fn socket_path(&self) -> Option<&Path> {
        match &self.target {
            Target::Unix(path) => Some(path),
            Target::Ip(_) | Target::Name(..) => None,
        }
    }

    /// What goes as `:authority`.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    pub(crate) fn too_long(&self) -> InvalidGrpcAddress {
        InvalidGrpcAddress::new(&self.to_string(), "it is too long for a runner's id; give it one")
    }

    pub(crate) async fn connect(&self) -> io::Result<Stream> {
        let stream = match &self.target {
            Target::Ip(address) => TcpStream::connect(address).await?,
            Target::Name(host, port) => TcpStream::connect((host.as_str(), *port)).await?,
            #[cfg(unix)]
            Target::Unix(path) => return Ok(Stream::Unix(UnixStream::connect(path).await?)),
            #[cfg(not(unix))]
            Target::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        // Small writes must not wait for a delayed ACK.
        stream.set_nodelay(true)?;
        Ok(Stream::Tcp(stream))
    }
}

/// A connection's socket, of either kind.
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl FromStr for GrpcAddress {
    type Err = InvalidGrpcAddress;

    fn from_str(text: &str) -> Result<Self, InvalidGrpcAddress> {
        Self::parse(text)
    }
}

impl fmt::Display for GrpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
            Target::Ip(_) | Target::Name(..) => f.write_str(&self.authority),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses() {
        for (text, shown, authority) in [
            ("10.0.0.5:50051", "10.0.0.5:50051", "10.0.0.5:50051"),
            ("http://gpu.local:50051/", "gpu.local:50051", "gpu.local:50051"),
            ("[::1]:1", "[::1]:1", "[::1]:1"),
            (" http://h:1 ", "h:1", "h:1"),
            ("unix:/run/a.sock", "unix:/run/a.sock", "localhost"),
            ("unix:///run/a.sock", "unix:/run/a.sock", "localhost"),
            ("unix:a.sock", "unix:a.sock", "localhost"),
        ] {
            let address = GrpcAddress::parse(text).unwrap();
            assert_eq!((address.to_string().as_str(), address.authority()), (shown, authority), "{text}");
        }
    }

    #[test]
    fn bad_addresses_say_what_to_do() {
        for (text, word) in [
            ("https://h:1", "TLS"),
            ("ftp://h:1", "host:port"),
            ("h", "port"),
            ("http://h", "port"),
            ("h:0", "65535"),
            ("h:99999", "65535"),
            ("h:", "65535"),
            ("[::z]:1", "IPv6"),
            ("http://h:1/path", "path"),
            ("/run/a.sock", "unix:"),
            ("", "host"),
            ("unix:", "path"),
            ("unix://host/a.sock", "unix:///"),
        ] {
            let problem = GrpcAddress::parse(text).unwrap_err().to_string();
            assert!(problem.contains(word), "{text}: {problem}");
        }
        let long = format!("unix:/{}", "x".repeat(200));
        assert!(GrpcAddress::parse(long).unwrap_err().to_string().contains("107"));
    }

    #[test]
    fn secrets_stay_out_of_errors() {
        for text in ["http://user:secret@h:1", "https://user:secret@h:1", "user:secret@h:1"] {
            let problem = GrpcAddress::parse(text).unwrap_err().to_string();
            assert!(!problem.contains("secret") && problem.contains('h'), "{problem}");
        }
    }
}
