//! A request's body on its way into a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use gateway_core::{LinkError, RequestBody};
use h2::{Reason, SendStream};
use http_body::Body as _;

/// Sends a body as fast as the runner takes it. Dropped before its end together with the answer, it resets
/// the stream.
pub(super) struct Upload {
    body: RequestBody,
    stream: SendStream<Bytes>,
    /// A chunk for which the stream has no window yet.
    waiting: Option<Bytes>,
    /// The body's bytes are in memory already, so queueing them in the stream costs nothing.
    is_held: bool,
}

impl Upload {
    pub(super) fn new(body: RequestBody, stream: SendStream<Bytes>) -> Self {
        let is_held = body.replay().is_some();
        Self { body, stream, waiting: None, is_held }
    }

    /// Ready when all is queued, or when the runner wants no more of it: its answer says what that means.
    /// Fails only if the body does.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        loop {
            if self.waiting.is_some() && !self.is_held {
                while self.stream.capacity() == 0 {
                    match ready!(self.stream.poll_capacity(cx)) {
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => return Poll::Ready(Ok(())),
                    }
                }
            }
            if let Some(mut chunk) = self.waiting.take() {
                if !self.is_held {
                    // The rest waits here, not in the stream's buffer.
                    let rest = chunk.split_off(chunk.len().min(self.stream.capacity()));
                    self.waiting = Some(rest).filter(|rest| !rest.is_empty());
                }
                let is_last = self.waiting.is_none() && self.body.is_end_stream();
                if self.stream.send_data(chunk, is_last).is_err() || is_last {
                    return Poll::Ready(Ok(()));
                }
                if let Some(rest) = &self.waiting {
                    self.stream.reserve_capacity(rest.len());
                }
                continue;
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                // Empty frames say nothing, and HTTP/2 peers count them against the connection.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() && !self.body.is_end_stream() => {}
                    Ok(data) => {
                        if !self.is_held {
                            self.stream.reserve_capacity(data.len());
                        }
                        self.waiting = Some(data);
                        if self.waiting.as_ref().is_some_and(Bytes::is_empty) {
                            self.waiting = None;
                            let _ = self.stream.send_data(Bytes::new(), true);
                            return Poll::Ready(Ok(()));
                        }
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            let _ = self.stream.send_trailers(trailers);
                            return Poll::Ready(Ok(()));
                        }
                    }
                },
                Some(Err(error)) => {
                    self.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(LinkError::request_body(error)));
                }
                None => {
                    let _ = self.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}
