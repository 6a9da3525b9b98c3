//! A request's body on its way into a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use gateway_core::{LinkError, RequestBody};
use http::HeaderMap;
use http_body::Body as _;

use super::mux::{GatewaySide, Handle};

/// Sends a body as fast as the runner takes it.
pub(super) struct Upload {
    body: RequestBody,
    /// What the runner does not take yet.
    waiting: Bytes,
}

impl Upload {
    pub(super) fn new(body: RequestBody) -> Self {
        Self { body, waiting: Bytes::new() }
    }

    /// Ready when all is queued, or when the runner wants no more of it: its answer says what that means.
    /// Fails only if the body does.
    pub(super) fn poll(
        &mut self,
        stream: &Handle<GatewaySide>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), LinkError>> {
        loop {
            if !self.waiting.is_empty() {
                ready!(stream.poll_send(cx, &mut self.waiting));
                if !self.waiting.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.waiting = data,
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            stream.send_end(trailers);
                            return Poll::Ready(Ok(()));
                        }
                    }
                },
                Some(Err(error)) => return Poll::Ready(Err(LinkError::request_body(error))),
                None => {
                    stream.send_end(HeaderMap::new());
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}
