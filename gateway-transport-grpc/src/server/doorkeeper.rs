//! Large messages of strangers: a message is read whole before anybody knows what it asks for, so who sends a large one
//! is asked for credentials first.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tower_service::Service;

use super::Shared;
use super::caller::Caller;
use super::inner::{LONGEST_ERROR, read_whole};
use crate::status::to_grpc::Failure;

/// What is read of anybody: most prompts are far smaller, and cost no question.
pub(super) const FREE: usize = 64 << 10;

/// A service whose callers have shown their credentials before more than [`FREE`] bytes of theirs are read.
#[derive(Debug, Clone)]
pub(super) struct Doorkeeper<S> {
    service: S,
    shared: Arc<Shared>,
}

impl<S> Doorkeeper<S> {
    pub(super) fn new(service: S, shared: Arc<Shared>) -> Self {
        Self { service, shared }
    }
}

impl<S: NamedService> NamedService for Doorkeeper<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<tonic::body::Body>> for Doorkeeper<S>
where
    S: Service<Request<tonic::body::Body>, Response = Response<tonic::body::Body>, Error = Infallible>,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> S::Future {
        let (head, body) = request.into_parts();
        let asking = Who {
            shared: self.shared.clone(),
            headers: head.headers.clone(),
            extensions: head.extensions.clone(),
        };
        let body = Watched { body, seen: 0, check: Check::Later(Some(asking)) };
        self.service.call(Request::from_parts(head, tonic::body::Body::new(body)))
    }
}

struct Who {
    shared: Arc<Shared>,
    headers: HeaderMap,
    extensions: http::Extensions,
}

impl Who {
    /// Asks for a model that need not exist: the gateway says whether the caller may ask before it looks.
    async fn may(self) -> Result<(), Status> {
        let caller = Caller::new(MetadataMap::from_headers(self.headers), self.extensions)?;
        let request = caller.request(Method::GET, Uri::from_static("/v1/models/-"), "", Bytes::new());
        let response = self.shared.inner.call(request).await;
        let response =
            response.map_err(|error| Status::unavailable(format!("The gateway failed: {error}")))?;
        let (head, body) = response.into_parts();
        if !matches!(head.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Ok(());
        }
        let words = read_whole(body, LONGEST_ERROR).await;
        Err(Failure::of_answer(head.status, &head.headers, &words).into_status())
    }
}

enum Check {
    Later(Option<Who>),
    Now(Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>),
    Done,
}

struct Watched {
    body: tonic::body::Body,
    seen: usize,
    check: Check,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.seen > FREE {
            if let Check::Later(who) = &mut this.check {
                this.check = who.take().map_or(Check::Done, |who| Check::Now(Box::pin(who.may())));
            }
            if let Check::Now(asking) = &mut this.check {
                let answered = ready!(asking.as_mut().poll(cx));
                this.check = Check::Done;
                if let Err(status) = answered {
                    this.body = tonic::body::Body::empty();
                    return Poll::Ready(Some(Err(status)));
                }
            }
        }
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let (Poll::Ready(Some(Ok(frame))), Check::Later(_)) = (&polled, &this.check) {
            this.seen += frame.data_ref().map_or(0, Bytes::len);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
