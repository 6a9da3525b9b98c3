use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use gateway_core::{BoxError, DispatchBody};
use http_body::{Body, Frame, SizeHint};

use crate::inference::{Awaited, Heard, SseGuard};
use crate::request_log::Record;

/// The body of every answer of the gateway. Dropping it before its end cancels the request on the runner.
///
/// An error means that the answer broke off and the connection should be cut, so that the client notices;
/// servers do that by themselves. Event streams end with an error event instead.
#[must_use = "dropping the body cancels the request"]
pub struct GatewayBody {
    source: Source,
    record: Option<Box<Record>>,
}

/// An answer is moved from hand to hand until it is with the server, so what is big stands elsewhere.
enum Source {
    Held(Bytes),
    Answer(DispatchBody),
    Sse(Box<SseGuard>),
    Awaited(Box<Awaited>),
    Events(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl Source {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        record: Option<&mut Record>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Self::Awaited(awaited) = self {
            match ready!(awaited.poll(cx, record)) {
                Heard::Comment(comment) => return Poll::Ready(Some(Ok(Frame::data(comment)))),
                Heard::Stream(guard) => *self = Self::Sse(guard),
                Heard::LastWords(words) => *self = Self::Held(words),
            }
        }
        match self {
            Self::Held(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Answer(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Sse(guard) => guard.poll(cx).map(|frame| frame.map(Ok)),
            Self::Events(events) => {
                events.as_mut().poll_next(cx).map(|event| event.map(|e| Ok(Frame::data(e))))
            }
            Self::Awaited(_) => Poll::Pending,
        }
    }

    fn is_end(&self) -> bool {
        match self {
            Self::Held(bytes) => bytes.is_empty(),
            Self::Answer(body) => body.is_end_stream(),
            Self::Sse(guard) => guard.is_end(),
            Self::Events(_) | Self::Awaited(_) => false,
        }
    }

    fn broken(&self) -> Option<&'static str> {
        match self {
            Self::Sse(guard) => guard.broken(),
            _ => None,
        }
    }
}

impl GatewayBody {
    pub(crate) fn held(bytes: Bytes) -> Self {
        Self { source: Source::Held(bytes), record: None }
    }

    pub(crate) fn answer(body: DispatchBody) -> Self {
        Self { source: Source::Answer(body), record: None }
    }

    pub(crate) fn sse(body: DispatchBody) -> Self {
        Self { source: Source::Sse(Box::new(SseGuard::new(body))), record: None }
    }

    pub(crate) fn awaited(awaited: Awaited) -> Self {
        Self { source: Source::Awaited(Box::new(awaited)), record: None }
    }

    pub(crate) fn events(events: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self { source: Source::Events(Box::pin(events)), record: None }
    }

    /// The record is finished when the body is.
    pub(crate) fn recorded(mut self, mut record: Box<Record>) -> Self {
        if matches!(self.source, Source::Sse(_) | Source::Awaited(_)) {
            record.lasts();
        }
        self.record = Some(record);
        self.finish_if_done();
        self
    }

    /// For an answer to `HEAD`.
    pub(crate) fn without_content(mut self) -> Self {
        self.source = Source::Held(Bytes::new());
        self
    }

    fn finish(&mut self, broken: Option<&'static str>) {
        if let Some(mut record) = self.record.take() {
            record.finish(broken);
        }
    }

    /// Servers need not ask for the end when they have been told that there is nothing more.
    fn finish_if_done(&mut self) {
        if self.source.is_end() {
            self.finish(self.source.broken());
        }
    }
}

impl Body for GatewayBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { source, record } = &mut *self;
        let polled = source.poll(cx, record.as_deref_mut());
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(record), Some(data)) = (record, frame.data_ref()) {
                    record.sent(data);
                }
                self.finish_if_done();
            }
            Poll::Ready(Some(Err(_))) => self.finish(Some("broken_off")),
            Poll::Ready(None) => {
                let broken = self.source.broken();
                self.finish(broken);
            }
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Held(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Answer(body) => body.size_hint(),
            // An error event may be added at any time.
            Source::Sse(_) | Source::Awaited(_) | Source::Events(_) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for GatewayBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match &self.source {
            Source::Held(_) => "held",
            Source::Answer(_) => "answer",
            Source::Sse(_) => "event stream",
            Source::Awaited(_) => "awaited event stream",
            Source::Events(_) => "events",
        };
        write!(f, "GatewayBody({source})")
    }
}
