//! The bodies that travel between the gateway and a runner: bytes pass through as they came.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::error::BoxError;
use crate::link::LinkError;
use crate::stream::{Once, Progress};

/// The body of a request on its way to a runner.
///
/// Bytes that are held can be sent again on another runner ([`RequestBody::replay`]) and can have the
/// model's name replaced without copying the rest. A stream can be read once: it goes to another runner only
/// if the link to the first has dropped it without having read anything.
///
/// ```
/// use gateway_core::RequestBody;
/// let body = RequestBody::from(r#"{"model":"a"}"#);
/// assert!(body.replay().is_some());
/// ```
pub struct RequestBody {
    parts: Parts,
    model: Option<Range<usize>>,
}

enum Parts {
    Held(Bytes),
    /// Held, with another name put in: what is before it, the name, what is behind it. Empty ones are skipped.
    Renamed(Box<[Bytes; 3]>),
    Stream(Once),
}

impl RequestBody {
    /// No body.
    pub fn empty() -> Self {
        Self::from(Bytes::new())
    }

    /// A body that is passed on as it arrives, and of which nothing can be sent twice.
    pub fn stream<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self { parts: Parts::Stream(Once::new(Box::pin(IntoBoxError { body }))), model: None }
    }

    /// Marks where the model's name stands in held bytes, quotes included, so that it can be replaced.
    /// A range that does not lie inside the bytes is ignored.
    pub fn with_model_at(mut self, range: Range<usize>) -> Self {
        let fits = match &self.parts {
            Parts::Held(held) => range.start <= range.end && range.end <= held.len(),
            Parts::Renamed(_) | Parts::Stream(_) => false,
        };
        self.model = fits.then_some(range);
        self
    }

    /// A second copy of a body whose bytes are held (they are shared, not copied); `None` for a stream.
    pub fn replay(&self) -> Option<Self> {
        let parts = match &self.parts {
            Parts::Held(held) => Parts::Held(held.clone()),
            Parts::Renamed(pieces) => Parts::Renamed(pieces.clone()),
            Parts::Stream(_) => return None,
        };
        Some(Self { parts, model: self.model.clone() })
    }

    /// Whether [`replay`](RequestBody::replay) gives a copy.
    pub fn can_replay(&self) -> bool {
        !matches!(self.parts, Parts::Stream(_))
    }

    /// The body for one try: a copy of what is held, or the stream itself, which comes back when the try drops
    /// it unread. `None` if it did not come back.
    pub(crate) fn lend(&mut self) -> Option<Self> {
        match &mut self.parts {
            Parts::Held(_) | Parts::Renamed(_) => self.replay(),
            Parts::Stream(stream) => Some(Self { parts: Parts::Stream(stream.lend()?), model: None }),
        }
    }

    /// Whether [`lend`](RequestBody::lend) gives one.
    pub(crate) fn can_lend(&self) -> bool {
        match &self.parts {
            Parts::Held(_) | Parts::Renamed(_) => true,
            Parts::Stream(stream) => stream.can_lend(),
        }
    }

    /// How far a stream has been read.
    pub(crate) fn progress(&self) -> Option<Progress> {
        match &self.parts {
            Parts::Held(_) | Parts::Renamed(_) => None,
            Parts::Stream(stream) => Some(stream.progress()),
        }
    }

    /// The same body with `name` (JSON, quotes included) where the model's name was marked.
    pub(crate) fn rename_model(mut self, name: &Bytes) -> Self {
        if let (Parts::Held(all), Some(at)) = (&self.parts, self.model.take()) {
            let pieces = [all.slice(..at.start), name.clone(), all.slice(at.end..)];
            self.parts = Parts::Renamed(Box::new(pieces));
        }
        self
    }

    /// Length in bytes, if it is known before the end.
    pub fn len(&self) -> Option<u64> {
        match &self.parts {
            Parts::Held(held) => Some(held.len() as u64),
            Parts::Renamed(pieces) => Some(pieces.iter().map(|piece| piece.len() as u64).sum()),
            Parts::Stream(body) => body.size_hint().exact(),
        }
    }

    /// Whether there is certainly nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

impl<T: Into<Bytes>> From<T> for RequestBody {
    fn from(bytes: T) -> Self {
        Self { parts: Parts::Held(bytes.into()), model: None }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = match &mut self.parts {
            Parts::Held(held) => (!held.is_empty()).then(|| std::mem::take(held)),
            Parts::Renamed(pieces) => pieces.iter_mut().find(|piece| !piece.is_empty()).map(std::mem::take),
            Parts::Stream(body) => return Pin::new(body).poll_frame(cx),
        };
        Poll::Ready(next.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.parts {
            Parts::Held(held) => held.is_empty(),
            Parts::Renamed(pieces) => pieces.iter().all(Bytes::is_empty),
            Parts::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.parts, self.len()) {
            (Parts::Stream(body), _) => body.size_hint(),
            (_, Some(len)) => SizeHint::with_exact(len),
            (_, None) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the bytes: a prompt does not belong into a log.
        f.debug_struct("RequestBody").field("len", &self.len()).finish()
    }
}

pin_project_lite::pin_project! {
    struct IntoBoxError<B> {
        #[pin]
        body: B,
    }
}

impl<B> Body for IntoBoxError<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.project().body.poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a runner's answer, as its link delivers it. Dropping it cancels the work on the runner.
pub struct LinkBody(Pin<Box<dyn Body<Data = Bytes, Error = LinkError> + Send>>);

impl LinkBody {
    /// Wraps what a link reads its chunks from.
    pub fn new(body: impl Body<Data = Bytes, Error = LinkError> + Send + 'static) -> Self {
        Self(Box::pin(body))
    }

    /// A body whose bytes are all here.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        struct Full(Option<Bytes>);
        impl Body for Full {
            type Data = Bytes;
            type Error = LinkError;
            fn poll_frame(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
                Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
            }
            fn is_end_stream(&self) -> bool {
                self.0.is_none()
            }
            fn size_hint(&self) -> SizeHint {
                SizeHint::with_exact(self.0.as_ref().map_or(0, |data| data.len() as u64))
            }
        }
        Self::new(Full(Some(bytes.into()).filter(|bytes| !bytes.is_empty())))
    }
}

impl Body for LinkBody {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        self.0.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl fmt::Debug for LinkBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkBody")
    }
}
