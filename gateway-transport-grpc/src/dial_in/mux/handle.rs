//! What a request holds of its stream.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use super::stream::{Broken, Stream};
use super::{Mux, STREAM_WINDOW, Side, State, remember, wake};
use crate::proto::runner_gateway::ResetReason;

/// A stream. Dropped before both halves are done, it resets the stream, which the peer hears at once.
pub(crate) struct Handle<S: Side> {
    mux: Arc<Mux<S>>,
    id: u64,
}

/// What comes on a stream, for whoever reads it apart from the [`Handle`]. Dropped before the end, it lets the
/// stream live: nobody wants the rest.
pub(crate) struct BodyHandle<S: Side> {
    mux: Arc<Mux<S>>,
    id: u64,
}

/// A part of a body.
pub(crate) enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl<S: Side> Handle<S> {
    pub(super) fn new(mux: Arc<Mux<S>>, id: u64) -> Self {
        Self { mux, id }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// What comes on it, for another task. Ask once.
    pub(crate) fn body(&self) -> BodyHandle<S> {
        BodyHandle { mux: self.mux.clone(), id: self.id }
    }

    fn with<T>(&self, gone: T, look: impl FnOnce(&mut Stream<S>) -> T) -> T {
        self.mux.state().streams.get_mut(&self.id).map_or(gone, look)
    }

    /// Waits for the peer's head.
    pub(crate) fn poll_head(&self, cx: &mut Context<'_>) -> Poll<Result<S::Head, Broken>> {
        self.with(Poll::Ready(Err(Broken::Lost)), |stream| {
            if let Some(head) = stream.in_head.take() {
                return Poll::Ready(Ok(head));
            }
            if let Some(broken) = stream.broken {
                return Poll::Ready(Err(broken));
            }
            remember(&mut stream.reader, cx.waker());
            Poll::Pending
        })
    }

    /// What comes, as [`BodyHandle::poll_part`] has it.
    pub(crate) fn poll_part(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Broken>>> {
        poll_part(&self.mux, self.id, cx)
    }

    /// Whether all that was to come has been taken.
    pub(crate) fn is_read(&self) -> bool {
        self.with(true, |stream| {
            stream.in_done && stream.inbox.is_empty() && stream.trailers.is_none() && stream.broken.is_none()
        })
    }

    /// Ready when the stream has ended out of turn.
    pub(crate) fn poll_broken(&self, cx: &mut Context<'_>) -> Poll<Broken> {
        self.with(Poll::Ready(Broken::Lost), |stream| match stream.broken {
            Some(broken) => Poll::Ready(broken),
            None => {
                remember(&mut stream.sender, cx.waker());
                Poll::Pending
            }
        })
    }

    /// Begins our half. For the end that does not begin streams.
    pub(crate) fn answer(&self, head: S::Out, end: bool) {
        let writer = {
            let mut state = self.mux.state();
            let Some(stream) = state.streams.get_mut(&self.id).filter(|stream| stream.broken.is_none())
            else {
                return;
            };
            stream.head = Some(head);
            stream.out_done = end;
            state.heads.push_back(self.id);
            state.writer.take()
        };
        wake(writer);
    }

    /// Queues a chunk, as much as the peer takes at a time: ready when all of it is queued, or when nobody wants
    /// it any more.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<()> {
        let (writer, done) = {
            let mut state = self.mux.state();
            let State { streams, ring, writer, .. } = &mut *state;
            let Some(stream) = streams.get_mut(&self.id) else { return Poll::Ready(()) };
            if stream.out_done {
                return Poll::Ready(());
            }
            let before = chunk.len();
            stream.queue(chunk);
            let done = chunk.is_empty();
            if !done {
                stream.held_back = true;
                remember(&mut stream.sender, cx.waker());
            }
            let writer = if chunk.len() < before { put_in_ring(stream, self.id, ring, writer) } else { None };
            (writer, done)
        };
        wake(writer);
        if done { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Queues the end of our half.
    pub(crate) fn send_end(&self, trailers: HeaderMap) {
        let writer = {
            let mut state = self.mux.state();
            let State { streams, ring, writer, .. } = &mut *state;
            let Some(stream) = streams.get_mut(&self.id).filter(|stream| !stream.out_done) else { return };
            stream.queue_end(trailers);
            put_in_ring(stream, self.id, ring, writer)
        };
        wake(writer);
    }

    /// Ends the stream at once, for that reason.
    pub(crate) fn reset(self, reason: ResetReason) {
        self.give_up(reason);
    }

    fn give_up(&self, reason: ResetReason) {
        let wakers = {
            let mut state = self.mux.state();
            let Some(stream) = state.streams.get(&self.id) else { return };
            let tell = if S::BEGINS {
                // The answer's end is the end of the stream.
                stream.head_sent && !stream.in_done
            } else if stream.out_done && stream.broken.is_none() {
                // The writer takes it out with its last frame.
                return;
            } else {
                true
            };
            let tell = tell && stream.broken.is_none();
            let Some(mut stream) = state.forget(self.id) else { return };
            if tell {
                state.reset(self.id, reason);
            }
            let finisher = if state.is_finished() { state.finisher.take() } else { None };
            [state.writer.take(), stream.reader.take(), finisher]
        };
        wakers.into_iter().for_each(wake);
    }
}

/// Wakes the writer if it did not know of the stream.
fn put_in_ring<S: Side>(
    stream: &mut Stream<S>,
    id: u64,
    ring: &mut std::collections::VecDeque<u64>,
    writer: &mut Option<std::task::Waker>,
) -> Option<std::task::Waker> {
    if stream.in_ring || !stream.is_ready() {
        return None;
    }
    stream.in_ring = true;
    ring.push_back(id);
    writer.take()
}

fn poll_part<S: Side>(mux: &Mux<S>, id: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Broken>>> {
    let (writer, part) = {
        let mut state = mux.state();
        let State { streams, updates, writer, .. } = &mut *state;
        let Some(stream) = streams.get_mut(&id) else { return Poll::Ready(Some(Err(Broken::Lost))) };
        if let Some(data) = stream.inbox.pop() {
            stream.owed += data.len() as u32;
            // Not for each chunk, but before the peer could run dry.
            let tell = stream.owed >= STREAM_WINDOW / 2 && !stream.in_done && !stream.update_waits;
            if tell {
                stream.update_waits = true;
                updates.push_back(id);
            }
            (if tell { writer.take() } else { None }, Part::Data(data))
        } else if let Some(broken) = stream.broken {
            return Poll::Ready(Some(Err(broken)));
        } else if stream.in_done {
            return Poll::Ready(stream.trailers.take().map(|trailers| Ok(Part::Trailers(trailers))));
        } else {
            remember(&mut stream.reader, cx.waker());
            return Poll::Pending;
        }
    };
    wake(writer);
    Poll::Ready(Some(Ok(part)))
}

impl<S: Side> Drop for Handle<S> {
    fn drop(&mut self) {
        self.give_up(S::DROPPED);
    }
}

impl<S: Side> BodyHandle<S> {
    /// The next part, `None` at the end, after which it must not be asked again. Taking it gives the peer credit.
    pub(crate) fn poll_part(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Broken>>> {
        poll_part(&self.mux, self.id, cx)
    }
}

impl<S: Side> Drop for BodyHandle<S> {
    fn drop(&mut self) {
        if let Some(stream) = self.mux.state().streams.get_mut(&self.id) {
            stream.unread = true;
            stream.inbox.clear();
        }
    }
}
