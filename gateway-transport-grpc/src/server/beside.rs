//! gRPC and HTTP on one port.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use gateway_core::BoxError;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use http_body_util::Either;
use tower_service::Service;

use super::GrpcServer;

/// Whether a request's headers say that it is one of gRPC. That of browsers, grpc-web, is another protocol.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    content_type.split_at_checked(GRPC.len()).is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
    })
}

/// A [`GrpcServer`] and an HTTP service as one: see [`GrpcServer::beside`].
#[derive(Debug, Clone)]
pub struct Beside<H> {
    pub(super) grpc: GrpcServer,
    pub(super) http: H,
}

/// The future of an answer of [`Beside`].
pub type BesideFuture<HB> =
    Pin<Box<dyn Future<Output = Result<Response<Either<tonic::body::Body, HB>>, Infallible>> + Send>>;

impl<H, B, HB> Service<Request<B>> for Beside<H>
where
    H: Service<Request<B>, Response = Response<HB>, Error = Infallible>,
    H::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Either<tonic::body::Body, HB>>;
    type Error = Infallible;
    type Future = BesideFuture<HB>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // That of gRPC is always ready.
        self.http.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> BesideFuture<HB> {
        if is_grpc(request.headers()) {
            let answering = self.grpc.call(request);
            Box::pin(async move { Ok(answering.await?.map(Either::Left)) })
        } else {
            let answering = self.http.call(request);
            Box::pin(async move { Ok(answering.await?.map(Either::Right)) })
        }
    }
}
