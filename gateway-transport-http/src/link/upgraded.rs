//! A connection that has changed to another protocol.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use gateway_core::{LinkError, RequestBody};
use http_body::{Body, Frame};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::connection::Connection;

/// The most that is read at once, in bytes: with what the kernel holds, all that is read ahead of a reader
/// that stalls.
const CHUNK: usize = 16 * 1024;

/// What the runner sends. Whoever reads it passes on what goes to the runner, too: there is no task behind it.
/// Ends when the runner's side does; dropped before, it closes the socket.
pub(super) struct UpgradedBody {
    io: TokioIo<Upgraded>,
    /// `None` once it has ended, which the runner was told.
    upload: Option<RequestBody>,
    waiting: Bytes,
    read: BytesMut,
    over: bool,
    /// The link ends every connection.
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Keeps its place among the connections of the link.
    _connection: Connection,
}

impl UpgradedBody {
    pub(super) fn new(
        io: Upgraded,
        upload: RequestBody,
        connection: Connection,
        closed: WaitForCancellationFutureOwned,
    ) -> Self {
        Self {
            io: TokioIo::new(io),
            upload: Some(upload),
            waiting: Bytes::new(),
            read: BytesMut::new(),
            over: false,
            closed: Box::pin(closed),
            _connection: connection,
        }
    }

    /// Writes what there is for the runner. Ready when there will be no more.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        let lost = |error| LinkError::lost("the runner takes no more of the connection").because(error);
        while let Some(upload) = &mut self.upload {
            if self.waiting.has_remaining() {
                let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.waiting)).map_err(lost)?;
                if written == 0 {
                    return Poll::Ready(Err(LinkError::lost("the runner takes no more of the connection")));
                }
                self.waiting.advance(written);
                continue;
            }
            // Nothing is kept back while nothing more is there.
            let next = Pin::new(upload).poll_frame(cx);
            if next.is_pending() {
                ready!(Pin::new(&mut self.io).poll_flush(cx)).map_err(lost)?;
                return Poll::Pending;
            }
            match ready!(next) {
                Some(Ok(frame)) => self.waiting = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Err(LinkError::request_body(error))),
                None => {
                    ready!(Pin::new(&mut self.io).poll_shutdown(cx)).map_err(lost)?;
                    self.upload = None;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, LinkError>> {
        self.read.resize(CHUNK, 0);
        let mut read = ReadBuf::new(&mut self.read);
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut read);
        let filled = read.filled().len();
        Poll::Ready(match ready!(polled) {
            Ok(()) => Ok(self.read.split_to(filled).freeze()),
            Err(error) => Err(LinkError::lost("the connection broke off").because(error)),
        })
    }
}

impl Body for UpgradedBody {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        if this.closed.as_mut().poll(cx).is_ready() {
            this.over = true;
            return Poll::Ready(Some(Err(LinkError::lost("its link was closed"))));
        }
        if let Poll::Ready(Err(error)) = this.poll_upload(cx) {
            this.over = true;
            return Poll::Ready(Some(Err(error)));
        }
        let data = ready!(this.poll_read(cx));
        this.over = !matches!(&data, Ok(data) if !data.is_empty());
        Poll::Ready(match data {
            Ok(data) if data.is_empty() => None,
            Ok(data) => Some(Ok(Frame::data(data))),
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }
}
