//! How a byte stream to a gateway is made.

use std::fmt;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A byte stream to a gateway: anything that is read and written.
pub trait GatewayStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> GatewayStream for T {}

/// Makes the byte streams over which an agent dials. [`TcpConnector`] unless set; bring your own to go
/// through TLS, a proxy or a Unix socket.
///
/// ```
/// use gateway_dial_in::agent::{Connector, GatewayStream};
///
/// struct ThroughSocket;
///
/// #[async_trait::async_trait]
/// impl Connector for ThroughSocket {
///     async fn connect(&self, _host: &str, _port: u16) -> std::io::Result<Box<dyn GatewayStream>> {
///         Ok(Box::new(tokio::net::UnixStream::connect("/run/gateway.sock").await?))
///     }
/// }
/// ```
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    /// Connects to the gateway at `host` (a name or an IP address, without brackets) and `port`. Dropped
    /// when it takes longer than the agent's connect timeout.
    ///
    /// # Errors
    ///
    /// Why it could not; the agent dials again later.
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn GatewayStream>>;
}

/// TCP with `TCP_NODELAY`, and with probes: a gateway whose machine or network is gone without a word is
/// noticed within a minute. The control protocol itself allows a gateway to be silent for ever.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnector;

#[async_trait]
impl Connector for TcpConnector {
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn GatewayStream>> {
        let stream = TcpStream::connect((host, port)).await?;
        tune(&stream)?;
        Ok(Box::new(stream))
    }
}

/// What is sent and not acknowledged, or not answered at all, for so long ends the connection: two
/// heartbeats.
const SILENCE: Duration = Duration::from_secs(60);

fn tune(stream: &TcpStream) -> io::Result<()> {
    // Tokens are small writes; without this each could wait for the ACK of the one before.
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let probes = TcpKeepalive::new().with_time(SILENCE / 2).with_interval(SILENCE / 6);
    #[cfg(not(any(target_os = "openbsd", target_os = "redox", target_os = "solaris")))]
    let probes = probes.with_retries(3);
    socket.set_tcp_keepalive(&probes)?;
    // Probes are not sent while data is unacknowledged; this covers that case where it exists.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    socket.set_tcp_user_timeout(Some(SILENCE))?;
    Ok(())
}

impl fmt::Debug for dyn Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn small_writes_do_not_wait_and_a_silent_peer_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tune(&stream).unwrap();
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        #[cfg(any(target_os = "android", target_os = "linux"))]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(SILENCE));
    }
}
