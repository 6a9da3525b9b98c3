//! The HTTP request that becomes a WebSocket.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use gateway_core::{Door, PeerAddr};
use gateway_dial_in::gateway::NoRoom;
use http::{HeaderValue, Request, Response, StatusCode, header, request};
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite;
use tungstenite::error::ProtocolError;

use super::Shared;
use super::arrival::arrive;

/// The door of [`WsRunners`](super::WsRunners), as a service for any host that can upgrade. Cheap to clone.
///
/// Answers 101 to a WebSocket handshake, 426 or 400 to anything else, and 503 when there is no room or the
/// source does not run. The path is not looked at: whoever mounts it has done that.
#[derive(Clone)]
pub struct WsAcceptor {
    shared: Arc<Shared>,
}

impl WsAcceptor {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn open(&self, mut head: request::Parts) -> Result<Response<Bytes>, Closed> {
        let shared = &self.shared;
        shared.lobby.is_open()?;
        let upgrade = head.extensions.remove::<OnUpgrade>();
        let peer = head.extensions.get::<PeerAddr>().map(|peer| peer.0);
        let handshake = tungstenite::handshake::server::create_response(&Request::from_parts(head, ()))
            .map_err(|error| Closed::from_handshake(&error))?;
        let upgrade = upgrade.ok_or(Closed::NO_UPGRADE)?;
        let visit = shared.lobby.enter()?;
        let deadline = Instant::now() + visit.settings().register_timeout;
        visit.receive(arrive(shared.clone(), upgrade, peer, deadline));
        Ok(handshake.map(|()| Bytes::new()))
    }
}

impl Door for WsAcceptor {
    fn path(&self) -> &str {
        &self.shared.path
    }

    fn knock(&self, request: request::Parts) -> Response<Bytes> {
        self.open(request).unwrap_or_else(|closed| closed.answer())
    }
}

impl<B> tower_service::Service<Request<B>> for WsAcceptor {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.knock(request.into_parts().0).map(Full::new)))
    }
}

/// Why the door stays closed.
struct Closed {
    status: StatusCode,
    why: &'static str,
}

impl From<NoRoom> for Closed {
    fn from(why: NoRoom) -> Self {
        match why {
            NoRoom::NotRunning => Self::NOT_RUNNING,
            NoRoom::Full => Self::FULL,
        }
    }
}

impl Closed {
    const NO_UPGRADE: Self = Self {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        why: "This server does not let connections be upgraded; with hyper, serve them `with_upgrades`.\n",
    };
    const NOT_RUNNING: Self =
        Self { status: StatusCode::SERVICE_UNAVAILABLE, why: "No runners are let in now.\n" };
    const FULL: Self = Self { status: StatusCode::SERVICE_UNAVAILABLE, why: "There are too many runners.\n" };

    fn from_handshake(error: &tungstenite::Error) -> Self {
        let (status, why) = match error {
            tungstenite::Error::Protocol(
                ProtocolError::MissingSecWebSocketKey | ProtocolError::InvalidSecWebSocketKey,
            ) => (StatusCode::BAD_REQUEST, "The header Sec-WebSocket-Key is missing or wrong.\n"),
            tungstenite::Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => {
                (StatusCode::UPGRADE_REQUIRED, "Only version 13 of WebSocket is spoken here.\n")
            }
            _ => (StatusCode::UPGRADE_REQUIRED, "Runners dial in here, over WebSocket.\n"),
        };
        Self { status, why }
    }

    fn answer(self) -> Response<Bytes> {
        let mut answer = Response::new(Bytes::from_static(self.why.as_bytes()));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        match self.status {
            StatusCode::UPGRADE_REQUIRED => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        answer
    }
}
