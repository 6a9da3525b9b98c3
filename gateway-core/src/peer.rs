use std::net::SocketAddr;

/// Where a connection comes from. The host puts it into the extensions of each request, because only it
/// knows: a runner that dials in without the tunnel is dialled back at this address, and runners are told of
/// it in `x-forwarded-for`.
///
/// ```
/// use gateway_core::PeerAddr;
/// # let mut request = http::Request::new(());
/// # let peer = std::net::SocketAddr::from(([10, 0, 0, 7], 40123));
/// // `peer` is what `TcpListener::accept` gave beside the stream.
/// request.extensions_mut().insert(PeerAddr(peer));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);
