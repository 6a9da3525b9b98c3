//! An engine's answer on its way into a stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use gateway_core::{LinkBody, LinkError};
use http_body::{Body, Frame, SizeHint};

/// Most bytes that are put together to one frame: HTTP/2's largest unless more was agreed.
const TOGETHER: usize = 16 * 1024;

/// A chunk from this size on goes by itself: copying it costs more than a frame does.
const LARGE: usize = 4 * 1024;

/// Puts chunks that are ready together into one frame: both ends of the tunnel pay for every frame, and an engine
/// that is quicker than its readers has several tokens ready. Nothing is waited for. Without empty frames: HTTP/2
/// counts those against the connection, and closes it after a hundred.
pub(super) struct EngineBody {
    body: LinkBody,
    /// What came behind data that had to go first.
    next: Option<Option<Result<Frame<Bytes>, LinkError>>>,
}

impl EngineBody {
    pub(super) fn new(body: LinkBody) -> Self {
        Self { body, next: None }
    }

    fn poll_filled(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        loop {
            let polled = Pin::new(&mut self.body).poll_frame(cx);
            let is_empty = |frame: &Frame<Bytes>| frame.data_ref().is_some_and(Bytes::is_empty);
            if !matches!(&polled, Poll::Ready(Some(Ok(frame))) if is_empty(frame)) {
                return polled;
            }
        }
    }
}

/// Its bytes, if they are few; otherwise the frame as it came.
fn few(frame: Frame<Bytes>) -> Result<Bytes, Frame<Bytes>> {
    match frame.into_data() {
        Ok(data) if data.len() < LARGE => Ok(data),
        Ok(data) => Err(Frame::data(data)),
        Err(frame) => Err(frame),
    }
}

impl Body for EngineBody {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        let this = &mut *self;
        if let Some(next) = this.next.take() {
            return Poll::Ready(next);
        }
        let first = match this.poll_filled(cx) {
            Poll::Ready(Some(Ok(frame))) => match few(frame) {
                Ok(data) => data,
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            },
            other => return other,
        };
        let mut together = BytesMut::new();
        while first.len().max(together.len()) < TOGETHER - LARGE && !this.body.is_end_stream() {
            let Poll::Ready(polled) = this.poll_filled(cx) else { break };
            let next = match polled {
                Some(Ok(frame)) => match few(frame) {
                    Ok(data) => {
                        if together.is_empty() {
                            together.reserve(LARGE);
                            together.extend_from_slice(&first);
                        }
                        together.extend_from_slice(&data);
                        continue;
                    }
                    Err(frame) => Some(Ok(frame)),
                },
                other => other,
            };
            this.next = Some(next);
            break;
        }
        let data = if together.is_empty() { first } else { together.freeze() };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.next {
            Some(next) => next.is_none(),
            None => self.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.next {
            // Some of it is here.
            Some(_) => SizeHint::default(),
            None => self.body.size_hint(),
        }
    }
}

#[cfg(test)]
#[path = "engine_body_tests.rs"]
mod tests;
