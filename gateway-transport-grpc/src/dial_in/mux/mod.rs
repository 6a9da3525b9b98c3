//! Many requests in one gRPC stream: what is on its way on each, who may send how much, and what goes first.
//!
//! One lock for each connection, held to move frames and never across an await. The reader puts in what comes
//! ([`Mux::take`]), whoever writes takes out what is to be sent ([`Mux::fill`]), requests hold a [`Handle`].
//!
//! # What is bounded
//!
//! - Streams: as many as were agreed. Each has at most its window of bytes in either direction, and one head.
//! - Words (frames that belong to no stream): [`WORDS`] that wait; a peer that does not take them is too slow.
//! - Resets and window updates that wait: one for each stream that the peer has heard of and not heard the end
//!   of, because what is newer is only written after them.

mod handle;
mod inbox;
mod reading;
mod side;
mod stream;
#[cfg(test)]
mod tests;
mod writing;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use gateway_dial_in::Unsaid;
use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use crate::proto::runner_gateway::{Error, Reset, ResetReason};

pub(crate) use handle::{BodyHandle, Handle, Part};
pub(crate) use reading::{Taken, Violation};
pub(crate) use side::{Common, GatewaySide, RunnerSide, Side};
pub(crate) use stream::Broken;
use stream::Stream;
pub(crate) use writing::Filled;

/// Bytes that may be on their way on one stream before its reader has taken any, as in the tunnel over WebSocket:
/// seconds of generated text, and little when a reader stalls.
pub(crate) const STREAM_WINDOW: u32 = 65_536;

/// Most bytes of a body in one frame: a frame that must not wait waits for no more than this.
pub(crate) const DATA_BYTES: usize = 16 * 1024;

/// Most frames that belong to no stream and wait to be written.
pub(crate) const WORDS: usize = 64;

/// The most streams of one connection, whatever a runner asks for: bounds its memory to this times
/// [`STREAM_WINDOW`], either way.
pub(crate) const MAX_STREAMS: u32 = 1024;

/// The streams of one connection.
pub(crate) struct Mux<S: Side> {
    state: Mutex<State<S>>,
    /// Cancelled when this end has said that it ends.
    closing: CancellationToken,
    /// Cancelled when whoever writes is gone: nothing can be sent any more.
    written: CancellationToken,
}

struct State<S: Side> {
    streams: HashMap<u64, Stream<S>>,
    /// The highest number that was begun.
    last: u64,
    max_streams: usize,
    words: VecDeque<S::Out>,
    resets: VecDeque<Reset>,
    /// Streams with a window update to be written.
    updates: VecDeque<u64>,
    /// Streams whose head is to be written, oldest first.
    heads: VecDeque<u64>,
    /// Streams with data or their end to be written, each at its turn.
    ring: VecDeque<u64>,
    /// The peer wants nothing new.
    peer_leaves: bool,
    /// We want nothing new.
    leaving: bool,
    /// What this end says last; nothing but words goes out before it.
    farewell: Option<HeaderMap>,
    /// Nothing moves any more.
    ended: bool,
    writer: Option<Waker>,
    /// Waits until everything is finished.
    finisher: Option<Waker>,
}

/// Why a stream was not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotBegun {
    /// As many as may be.
    Full,
    /// The peer wants nothing new.
    PeerLeaves,
    Ended,
}

impl<S: Side> Mux<S> {
    pub(crate) fn new() -> Arc<Self> {
        let state = State {
            streams: HashMap::new(),
            last: 0,
            max_streams: 0,
            words: VecDeque::new(),
            resets: VecDeque::new(),
            updates: VecDeque::new(),
            heads: VecDeque::new(),
            ring: VecDeque::new(),
            peer_leaves: false,
            leaving: false,
            farewell: None,
            ended: false,
            writer: None,
            finisher: None,
        };
        let (closing, written) = (CancellationToken::new(), CancellationToken::new());
        Arc::new(Self { state: Mutex::new(state), closing, written })
    }

    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Allows streams; none are before.
    pub(crate) fn allow(&self, max_streams: u32) {
        self.state().max_streams = max_streams as usize;
    }

    /// Queues a frame that belongs to no stream.
    pub(crate) fn say(&self, word: S::Out) -> Result<(), Unsaid> {
        let len = prost::Message::encoded_len(&word);
        if len > super::wire::FRAME_BYTES {
            return Err(Unsaid::TooLong(len));
        }
        let writer = {
            let mut state = self.state();
            if state.ended || state.farewell.is_some() {
                return Err(Unsaid::Ended);
            }
            if state.words.len() >= WORDS {
                return Err(Unsaid::TooSlow);
            }
            state.words.push_back(word);
            state.writer.take()
        };
        wake(writer);
        Ok(())
    }

    /// Begins a stream. Only the end that begins streams may.
    /// `end`: nothing follows its head.
    pub(crate) fn begin(
        self: &Arc<Self>,
        end: bool,
        head: impl FnOnce(u64) -> S::Out,
    ) -> Result<Handle<S>, NotBegun> {
        let (id, writer) = {
            let mut state = self.state();
            if state.ended || state.farewell.is_some() {
                return Err(NotBegun::Ended);
            }
            if state.peer_leaves {
                return Err(NotBegun::PeerLeaves);
            }
            if state.streams.len() >= state.max_streams {
                return Err(NotBegun::Full);
            }
            let id = state.last + 1;
            state.last = id;
            let mut stream = Stream::new();
            stream.head = Some(head(id));
            stream.out_done = end;
            state.streams.insert(id, stream);
            state.heads.push_back(id);
            (id, state.writer.take())
        };
        wake(writer);
        Ok(Handle::new(self.clone(), id))
    }

    /// Lets nothing new begin, and says so.
    pub(crate) fn leave(&self) {
        let writer = {
            let mut state = self.state();
            if state.leaving || state.ended || state.farewell.is_some() {
                return;
            }
            state.leaving = true;
            state.words.push_back(S::frame(Common::GoAway));
            state.writer.take()
        };
        wake(writer);
    }

    /// Ends this end in good order: what was said goes out, then, if it is given, the error, then the trailers.
    /// Streams end at once. The first word counts.
    pub(crate) fn farewell(&self, error: Option<Error>, trailers: HeaderMap) {
        let mut wakers = Vec::new();
        {
            let mut state = self.state();
            if state.ended || state.farewell.is_some() {
                return;
            }
            if let Some(error) = error {
                state.words.push_back(S::frame(Common::Error(error)));
            }
            state.farewell = Some(trailers);
            state.end_streams(&mut wakers);
            wakers.extend(state.writer.take());
        }
        wakers.into_iter().for_each(Waker::wake);
        self.closing.cancel();
    }

    /// Whoever writes is gone, or has written the last.
    pub(crate) fn end(&self) {
        let mut wakers = Vec::new();
        {
            let mut state = self.state();
            state.ended = true;
            state.words.clear();
            state.end_streams(&mut wakers);
            wakers.extend(state.finisher.take());
        }
        wakers.into_iter().for_each(Waker::wake);
        self.closing.cancel();
        self.written.cancel();
    }

    /// Waits until this end has said that it ends, or cannot say anything.
    pub(crate) async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Waits until nothing can be sent any more.
    pub(crate) async fn written(&self) {
        self.written.cancelled().await;
    }

    /// Ready when this end is leaving and everything that it had has been written. The frames may still be on
    /// their way in the HTTP/2 connection, which keeps their order.
    pub(crate) fn poll_finished(&self, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        let mut state = self.state();
        if state.is_finished() {
            return std::task::Poll::Ready(());
        }
        remember(&mut state.finisher, cx.waker());
        std::task::Poll::Pending
    }
}

impl<S: Side> State<S> {
    fn is_finished(&self) -> bool {
        let nothing_waits = self.streams.is_empty() && self.resets.is_empty() && self.words.is_empty();
        self.ended || (self.leaving && nothing_waits)
    }

    /// Takes a stream out of everything that knows it, so that nothing piles up while the peer does not read.
    fn forget(&mut self, id: u64) -> Option<Stream<S>> {
        let stream = self.streams.remove(&id)?;
        let mut places = [
            (stream.head.is_some(), &mut self.heads),
            (stream.in_ring, &mut self.ring),
            (stream.update_waits, &mut self.updates),
        ];
        for (is_in, queue) in &mut places {
            if *is_in && let Some(at) = queue.iter().rposition(|known| *known == id) {
                queue.remove(at);
            }
        }
        Some(stream)
    }

    fn end_streams(&mut self, wakers: &mut Vec<Waker>) {
        for stream in self.streams.values_mut() {
            if S::BEGINS && stream.in_done {
                // Its answer is whole, though not yet read.
                continue;
            }
            let why = if stream.head_sent || !S::BEGINS { Broken::Disconnected } else { Broken::NotSeen };
            stream.stop(why);
            wakers.extend(stream.wakers());
        }
        self.resets.clear();
        self.updates.clear();
        self.heads.clear();
        self.ring.clear();
    }

    /// Ends a stream of which the peer knows, with a word to it.
    fn reset(&mut self, id: u64, reason: ResetReason) {
        if !self.ended && self.farewell.is_none() {
            let message = String::new();
            self.resets.push_back(Reset { stream_id: id, reason: reason.into(), message });
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn remember(place: &mut Option<Waker>, waker: &Waker) {
    if !place.as_ref().is_some_and(|known| known.will_wake(waker)) {
        *place = Some(waker.clone());
    }
}
