//! The link to a runner that dialled in, and the body of its answers.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::Bytes;
use gateway_core::{LinkBody, LinkDescription, LinkError, LinkRequest, LinkResponse, RunnerLink};
use http::Response;
use http_body::{Body, Frame};

use super::connection::{UNAVAILABLE, farewell};
use super::mux::{Broken, GatewaySide, Handle, Mux, NotBegun, Part};
use super::upload::Upload;
use super::wire::{request_to, response_from};
use crate::proto::runner_gateway::{GatewayFrame, gateway_frame};

/// The way to a runner through the call that it made.
///
/// Dropping the future of [`send`](RunnerLink::send) or the body of its answer resets the stream, which goes
/// before everything but control frames.
pub(super) struct DialInLink {
    mux: Arc<Mux<GatewaySide>>,
    address: Option<String>,
}

impl DialInLink {
    pub(super) fn new(mux: Arc<Mux<GatewaySide>>, peer: Option<SocketAddr>) -> Self {
        Self { mux, address: peer.map(|peer| peer.to_string()) }
    }
}

#[async_trait]
impl RunnerLink for DialInLink {
    fn describe(&self) -> LinkDescription {
        LinkDescription { transport: "grpc-dial-in", address: self.address.clone() }
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        let (head, body) = request.into_parts();
        let end = body.is_end_stream();
        let mut head = request_to(&head, &body, end)
            .map_err(|error| LinkError::not_sent("the request's head cannot be sent").because(error))?;
        let begin = |id| {
            head.stream_id = id;
            GatewayFrame { frame: Some(gateway_frame::Frame::RequestHead(head)) }
        };
        let stream = self.mux.begin(end, begin).map_err(not_begun)?;
        let mut upload = (!end).then(|| Upload::new(body));
        let head = poll_fn(|cx| {
            if let Some(sending) = &mut upload
                && let Poll::Ready(sent) = sending.poll(&stream, cx)
            {
                upload = None;
                sent?;
            }
            stream.poll_head(cx).map_err(before_head)
        })
        .await?;
        let (status, headers) = match response_from(head) {
            Ok(head) => head,
            Err(wrong) => {
                // Not only this request's affair: whoever says such things says others.
                farewell(&self.mux, gateway_dial_in::gateway::Refusal::PROTOCOL_ERROR, &wrong.to_string());
                return Err(LinkError::lost("the answer's head makes no sense").because(wrong));
            }
        };
        let mut response = Response::new(LinkBody::new(Answer { stream, upload, done: false }));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    fn close(&self) {
        farewell(&self.mux, UNAVAILABLE, "the gateway closed the connection");
    }
}

fn not_begun(why: NotBegun) -> LinkError {
    LinkError::not_sent(match why {
        NotBegun::Full => "every stream of the connection is taken",
        NotBegun::PeerLeaves => "the runner takes no new streams",
        NotBegun::Ended => "the runner's connection has ended",
    })
}

fn before_head(broken: Broken) -> LinkError {
    match broken {
        Broken::NotSeen => LinkError::not_sent("the runner has not looked at the request"),
        Broken::Unreachable => LinkError::not_sent("the runner could not reach its engine"),
        Broken::Lost => LinkError::lost("the runner lost its engine"),
        Broken::Disconnected => LinkError::lost("the runner's connection ended before the answer"),
    }
}

/// Hands on chunks as they come and gives their credit back at that moment, so that a reader that stops stops its
/// runner too.
struct Answer {
    stream: Handle<GatewaySide>,
    /// The rest of the request, if the runner answered before it had all of it.
    upload: Option<Upload>,
    done: bool,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        if let Some(upload) = &mut this.upload
            && let Poll::Ready(sent) = upload.poll(&this.stream, cx)
        {
            this.upload = None;
            if let Err(error) = sent {
                this.done = true;
                return Poll::Ready(Some(Err(error)));
            }
        }
        Poll::Ready(match ready!(this.stream.poll_part(cx)) {
            Some(Ok(Part::Data(data))) => Some(Ok(Frame::data(data))),
            Some(Ok(Part::Trailers(trailers))) => Some(Ok(Frame::trailers(trailers))),
            Some(Err(_)) => {
                this.done = true;
                Some(Err(LinkError::lost("the answer broke off")))
            }
            None => {
                this.done = true;
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.done || self.stream.is_read()
    }
}
