//! A request's body that is passed on as it arrives, and so can be sent only once.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::error::BoxError;

type Stream = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

/// A stream, or a claim to one that is lent. A link that drops it before it has read anything gives it back,
/// and then another runner can have it.
pub(crate) struct Once {
    stream: Option<Stream>,
    home: Arc<Home>,
}

struct Home {
    /// Here after a link has given it back.
    unread: Mutex<Option<Stream>>,
    born: Instant,
    /// When the last frame was read, in ms since `born`, plus one; 0: nothing has been read yet.
    moved: AtomicU64,
}

impl Once {
    pub(crate) fn new(stream: Stream) -> Self {
        let home = Home { unread: Mutex::new(None), born: Instant::now(), moved: AtomicU64::new(0) };
        Self { stream: Some(stream), home: Arc::new(home) }
    }

    /// The stream for one try; `None` while another has it, and once something of it was read.
    pub(crate) fn lend(&mut self) -> Option<Self> {
        let stream = self.stream.take().or_else(|| self.home.unread().take())?;
        Some(Self { stream: Some(stream), home: self.home.clone() })
    }

    pub(crate) fn can_lend(&self) -> bool {
        self.stream.is_some() || self.home.unread().is_some()
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress(self.home.clone())
    }
}

impl Home {
    /// Held for a move, never while the stream is polled or dropped.
    fn unread(&self) -> MutexGuard<'_, Option<Stream>> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Once {
    fn drop(&mut self) {
        if self.home.moved.load(Ordering::Relaxed) == 0
            && let Some(stream) = self.stream.take()
        {
            *self.home.unread() = Some(stream);
        }
    }
}

impl Body for Once {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        let frame = std::task::ready!(stream.as_mut().poll_frame(cx));
        let age = u64::try_from(self.home.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.home.moved.store(age + 1, Ordering::Relaxed);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.stream.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// How far a stream has come, for those who do not read it.
#[derive(Clone)]
pub(crate) struct Progress(Arc<Home>);

impl Progress {
    /// Whether something was read, so that nobody else can have it from its beginning.
    pub(crate) fn has_begun(&self) -> bool {
        self.last().is_some()
    }

    /// When something was last read.
    pub(crate) fn last(&self) -> Option<Instant> {
        let moved = self.0.moved.load(Ordering::Relaxed).checked_sub(1)?;
        Some(self.0.born + Duration::from_millis(moved))
    }
}
