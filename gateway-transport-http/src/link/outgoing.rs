//! A request's body on its way into a connection.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use gateway_core::{BoxError, RequestBody};
use http_body::{Body, Frame, SizeHint};

/// The client's own body failed. Tells such an error apart from the runner's.
#[derive(Debug)]
pub(super) struct BodyFault(BoxError);

impl fmt::Display for BodyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for BodyFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

pub(super) enum Outgoing {
    /// In a box, because each connection has places for 32 requests of hyper's.
    Once(Box<RequestBody>),
    /// A stream of which the beginning is kept.
    Kept(Arc<Mutex<Kept>>),
}

/// A stream that can be sent again as long as little of it was read: what a dead connection takes before
/// its end is noticed.
pub(super) struct Kept {
    beginning: Vec<Bytes>,
    /// How many of these the present connection has had.
    given: usize,
    len: usize,
    rest: RequestBody,
    /// More was read than is kept.
    past: bool,
}

impl Kept {
    /// How much of a stream is kept, in bytes.
    pub(super) const LIMIT: usize = 256 * 1024;

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if let Some(data) = self.beginning.get(self.given) {
            self.given += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        let frame = std::task::ready!(Pin::new(&mut self.rest).poll_frame(cx));
        if let (Some(Ok(frame)), false) = (&frame, self.past) {
            match frame.data_ref() {
                Some(data) if self.len + data.len() <= Self::LIMIT => {
                    self.len += data.len();
                    self.given += 1;
                    self.beginning.push(data.clone());
                }
                _ => {
                    self.past = true;
                    self.given = 0;
                    self.beginning = Vec::new();
                }
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyFault)))
    }

    fn ahead(&self) -> u64 {
        self.beginning[self.given..].iter().map(|data| data.len() as u64).sum()
    }
}

impl Outgoing {
    /// A body that is sent, or not.
    pub(super) fn once(body: RequestBody) -> Self {
        Self::Once(Box::new(body))
    }

    /// A stream whose beginning is kept, and the hold on it.
    pub(super) fn keep(rest: RequestBody) -> (Self, Arc<Mutex<Kept>>) {
        let kept = Kept { beginning: Vec::new(), given: 0, len: 0, rest, past: false };
        let kept = Arc::new(Mutex::new(kept));
        (Self::Kept(kept.clone()), kept)
    }

    /// The same stream from its beginning, if that is still there.
    pub(super) fn again(kept: Arc<Mutex<Kept>>) -> Option<Self> {
        let mut inner = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.past {
            return None;
        }
        inner.given = 0;
        drop(inner);
        Some(Self::Kept(kept))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match self.get_mut() {
            Self::Once(body) => {
                Pin::new(&mut **body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(BodyFault)))
            }
            Self::Kept(kept) => kept.lock().unwrap_or_else(PoisonError::into_inner).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Once(body) => body.is_end_stream(),
            Self::Kept(kept) => {
                let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.given == kept.beginning.len() && kept.rest.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Once(body) => body.size_hint(),
            Self::Kept(kept) => {
                let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let (ahead, rest) = (kept.ahead(), kept.rest.size_hint());
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower() + ahead);
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper + ahead);
                }
                hint
            }
        }
    }
}
