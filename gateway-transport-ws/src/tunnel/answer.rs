//! The body of an answer that comes through the tunnel.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use gateway_core::LinkError;
use h2::RecvStream;
use http_body::{Body, Frame};
use tokio::sync::OwnedSemaphorePermit;

use super::upload::Upload;

/// Hands on chunks as they come and gives their window back at that moment, so that a reader that stops
/// stops its runner too.
pub(super) struct Answer {
    stream: RecvStream,
    /// The rest of the request, if the runner answered before it had all of it.
    upload: Option<Upload>,
    data_done: bool,
    /// Dropped last: the stream's place is free when the stream is.
    _place: OwnedSemaphorePermit,
}

impl Answer {
    pub(super) fn new(stream: RecvStream, upload: Option<Upload>, place: OwnedSemaphorePermit) -> Self {
        Self { stream, upload, data_done: false, _place: place }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        let this = &mut *self;
        if let Some(upload) = &mut this.upload {
            match upload.poll(cx) {
                Poll::Ready(Ok(())) => this.upload = None,
                Poll::Ready(Err(error)) => {
                    this.upload = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Pending => {}
            }
        }
        while !this.data_done {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Fails only for more than was received.
                    let _ = this.stream.flow_control().release_capacity(data.len());
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Some(Err(error)) => {
                    this.data_done = true;
                    let error = LinkError::lost("the answer broke off in the tunnel").because(error);
                    return Poll::Ready(Some(Err(error)));
                }
                None => this.data_done = true,
            }
        }
        let trailers = ready!(this.stream.poll_trailers(cx));
        Poll::Ready(match trailers {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            // The error was told when it came; a stream that is asked again has just ended.
            Err(_) => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}
