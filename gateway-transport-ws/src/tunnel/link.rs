//! The gateway's side.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use gateway_core::{
    LinkBody, LinkDescription, LinkError, LinkRequest, LinkResponse, RequestBody, RunnerLink,
};
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Uri, Version};
use http_body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::Answer;
use super::begin::{Http2, TunnelConnection};
use super::upload::Upload;
use super::{FAULT_HEADER, MAX_STREAMS, UNREACHABLE};
use crate::socket::TunnelIo;

/// The way to a runner through the connection that it dialled. Cheap to clone.
///
/// Dropping the future of [`send`](RunnerLink::send) or the body of its answer resets the stream, which
/// reaches the runner at once.
#[derive(Clone)]
pub struct TunnelLink {
    http2: Arc<Http2>,
    streams: Arc<Semaphore>,
    address: Option<String>,
}

/// HTTP/2 on the byte stream of a connection, from the first request on. The connection must be polled for anything
/// to move; it ends when the byte stream does, or when the last clone of the link and all its answers are gone.
///
/// `max_streams` is capped at [`MAX_STREAMS`]; `address` is for people.
pub fn connect(io: TunnelIo, max_streams: u32, address: Option<String>) -> (TunnelLink, TunnelConnection) {
    let streams = max_streams.clamp(1, MAX_STREAMS);
    let (http2, connection) = Http2::new(io, streams);
    let streams = Arc::new(Semaphore::new(streams as usize));
    (TunnelLink { http2: Arc::new(http2), streams, address }, connection)
}

#[async_trait]
impl RunnerLink for TunnelLink {
    fn describe(&self) -> LinkDescription {
        LinkDescription { transport: "tunnel", address: self.address.clone() }
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        // One more would wait inside HTTP/2, where nobody could send it elsewhere.
        let Ok(place) = self.streams.clone().try_acquire_owned() else {
            return Err(LinkError::not_sent("every stream of the tunnel is taken"));
        };
        let (head, body) = request.into_parts();
        let (head, is_empty) = tunnelled(head, &body)?;
        // Ready unless the connection has ended: a clone has no stream of its own to wait for.
        let mut sender = self.http2.sender()?.ready().await.map_err(not_sent)?;
        let (response, stream) = sender.send_request(head, is_empty).map_err(not_sent)?;
        let mut upload = (!is_empty).then(|| Upload::new(body, stream));
        let mut response = Box::pin(response);
        let response = poll_fn(|cx| {
            if let Some(sending) = &mut upload {
                match sending.poll(cx) {
                    Poll::Ready(Ok(())) => upload = None,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {}
                }
            }
            response.as_mut().poll(cx).map_err(before_head)
        })
        .await?;
        answer(response, upload, place)
    }
}

/// The head as HTTP/2 wants it, and whether nothing follows it.
fn tunnelled(
    mut head: http::request::Parts,
    body: &RequestBody,
) -> Result<(http::Request<()>, bool), LinkError> {
    let path = head.uri.into_parts().path_and_query;
    head.uri = Uri::builder()
        .scheme("http")
        // HTTP/2 wants one; there is only one host at the other end.
        .authority("runner")
        .path_and_query(path.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")))
        .build()
        .map_err(|error| LinkError::not_sent("the request's path cannot be sent").because(error))?;
    head.version = Version::HTTP_2;
    head.extensions.clear();
    if let Some(len) = body.len().filter(|len| *len > 0) {
        // Lets the runner know at once whether it can hold the body.
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
    }
    Ok((http::Request::from_parts(head, ()), body.is_end_stream()))
}

fn answer(
    response: http::Response<h2::RecvStream>,
    upload: Option<Upload>,
    place: OwnedSemaphorePermit,
) -> Result<LinkResponse, LinkError> {
    let (mut head, stream) = response.into_parts();
    if let Some(fault) = head.headers.remove(FAULT_HEADER) {
        // Dropping the stream is all there is to do: the body only repeats it for people.
        return Err(if fault == UNREACHABLE {
            LinkError::not_sent("the runner could not reach its engine")
        } else {
            LinkError::lost("the runner lost its engine")
        });
    }
    head.version = Version::default();
    Ok(http::Response::from_parts(head, LinkBody::new(Answer::new(stream, upload, place))))
}

fn not_sent(error: h2::Error) -> LinkError {
    LinkError::not_sent("the tunnel is closed").because(error)
}

/// The runner refused the stream, or went away without having looked at it: HTTP/2 promises in both cases
/// that nothing was done. Otherwise it may have seen the request.
fn before_head(error: h2::Error) -> LinkError {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    let unseen = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
    if refused || unseen {
        LinkError::not_sent("the runner takes no new streams").because(error)
    } else {
        LinkError::lost("the tunnel failed before the answer").because(error)
    }
}
