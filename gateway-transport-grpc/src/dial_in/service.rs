//! The service in the host's gRPC server.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use gateway_core::{BoxError, PeerAddr};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::Shared;
use super::arrival::arrive;
use super::mux::Mux;
use super::wire::{Messages, Outgoing, PATH};
use crate::proto::runner_gateway::runner_gateway_server::SERVICE_NAME;

/// The service of [`GrpcDialIn`](super::GrpcDialIn): gRPC over HTTP/2, as tower has it. Cheap to clone.
///
/// Mount it for the paths that begin with [`NAME`](Self::NAME). Who connects is told to people if the host puts
/// [`PeerAddr`] into the extensions of each request.
#[derive(Clone)]
pub struct DialInService {
    shared: Arc<Shared>,
}

impl DialInService {
    /// The name of the gRPC service; its descriptor is
    /// [`descriptors::RUNNER_GATEWAY`](crate::proto::descriptors::RUNNER_GATEWAY).
    pub const NAME: &'static str = SERVICE_NAME;

    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn open<B>(&self, request: Request<B>) -> Result<Response<tonic::body::Body>, Status>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if request.uri().path() != PATH || request.method() != Method::POST {
            return Err(Status::new(Code::Unimplemented, "this service has one method, Connect"));
        }
        let encoding = request.headers().get("grpc-encoding");
        if encoding.is_some_and(|encoding| encoding != "identity") {
            return Err(Status::new(Code::Unimplemented, "messages must not be compressed"));
        }
        let unavailable =
            |why: gateway_dial_in::gateway::NoRoom| Status::new(Code::Unavailable, why.to_string());
        let visit = self.shared.lobby.enter().map_err(unavailable)?;
        let (head, body) = request.into_parts();
        let token = bearer(&head.headers);
        let peer = head.extensions.get::<PeerAddr>().map(|peer| peer.0);
        let mux = Mux::new();
        let mut answer = Response::new(tonic::body::Body::new(Outgoing::new(mux.clone())));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let deadline = Instant::now() + visit.settings().register_timeout;
        let messages = Messages::new(Box::pin(body));
        visit.receive(arrive(self.shared.clone(), mux, messages, token, peer, deadline));
        Ok(answer)
    }
}

/// The token of the metadata; empty if there is none.
fn bearer(headers: &HeaderMap) -> String {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match value.split_at_checked("bearer ".len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer ") => token.trim().to_owned(),
        _ => String::new(),
    }
}

impl<B> tower_service::Service<Request<B>> for DialInService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_grpc = request.headers().get(CONTENT_TYPE).is_some_and(|kind| {
            let kind = kind.as_bytes();
            kind == b"application/grpc" || kind == b"application/grpc+proto"
        });
        if !is_grpc {
            let mut answer = Response::new(tonic::body::Body::empty());
            *answer.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return ready(Ok(answer));
        }
        ready(Ok(self.open(request).unwrap_or_else(Status::into_http)))
    }
}

impl tonic::server::NamedService for DialInService {
    const NAME: &'static str = SERVICE_NAME;
}
