//! What comes from the peer.

use std::sync::Arc;
use std::task::Waker;

use http::HeaderMap;

use super::side::{Common, Sorted};
use super::stream::{Broken, Stream};
use super::{DATA_BYTES, Handle, Mux, Side, State};
use crate::dial_in::wire::trailers_from;
use crate::proto::runner_gateway::{Data, End, Error, Reset, ResetReason, WindowUpdate};

/// The most credit that a stream may have.
const MAX_CREDIT: u32 = (1 << 31) - 1;

/// The peer does not keep to the protocol. The text is for its people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Violation(pub(crate) String);

/// What of a frame is not the mux's own affair.
pub(crate) enum Taken<S: Side> {
    Word(S::Word),
    /// The peer has begun a stream.
    Begun(Handle<S>, S::Head),
    Error(Error),
    /// Whoever it was for knows.
    Done,
}

impl<S: Side> Mux<S> {
    /// Takes a frame that has come.
    pub(crate) fn take(self: &Arc<Self>, frame: S::In) -> Result<Taken<S>, Violation> {
        let mut wakers = [None, None, None];
        let taken = {
            let mut state = self.state();
            match S::sort(frame) {
                Sorted::Word(word) => return Ok(Taken::Word(word)),
                Sorted::Common(Common::Error(error)) => return Ok(Taken::Error(error)),
                Sorted::Unknown => Taken::Done,
                Sorted::Head { id, end, head } if S::BEGINS => {
                    state.answered(id, end, head, &mut wakers)?;
                    Taken::Done
                }
                Sorted::Head { id, end, head } => {
                    let begun = state.begun(id, end)?;
                    wakers[2] = state.writer.take();
                    if begun { Taken::Begun(Handle::new(self.clone(), id), head) } else { Taken::Done }
                }
                Sorted::Common(common) => {
                    state.common(common, &mut wakers)?;
                    Taken::Done
                }
            }
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
        Ok(taken)
    }
}

type Wakers = [Option<Waker>; 3];

impl<S: Side> State<S> {
    /// The stream, or `None` if it has ended here: the peer may not have known when it sent this.
    fn known(&mut self, id: u64, what: &str) -> Result<Option<&mut Stream<S>>, Violation> {
        if id == 0 || id > self.last {
            return Err(Violation(format!("{what} for stream {id}, which was never begun")));
        }
        // One whose head is not written yet is not known to the peer.
        Ok(self
            .streams
            .get_mut(&id)
            .filter(|stream| stream.broken.is_none() && (stream.head_sent || !S::BEGINS)))
    }

    /// The peer begins a stream. `false`: it was turned away.
    fn begun(&mut self, id: u64, end: bool) -> Result<bool, Violation> {
        if id <= self.last {
            let last = self.last;
            return Err(Violation(format!("stream {id} begins after stream {last}; numbers only rise")));
        }
        let count = self.streams.len() + self.resets.len();
        if count >= self.max_streams {
            let max = self.max_streams;
            return Err(Violation(format!("stream {id} is one more than the {max} that were agreed")));
        }
        self.last = id;
        if self.leaving || self.ended || self.farewell.is_some() {
            self.reset(id, ResetReason::NotSeen);
            return Ok(false);
        }
        let mut stream = Stream::new();
        stream.head_seen = true;
        stream.in_done = end;
        self.streams.insert(id, stream);
        Ok(true)
    }

    fn answered(&mut self, id: u64, end: bool, head: S::Head, wakers: &mut Wakers) -> Result<(), Violation> {
        let Some(stream) = self.known(id, "a head")? else { return Ok(()) };
        if stream.head_seen {
            return Err(Violation(format!("a second head for stream {id}")));
        }
        stream.head_seen = true;
        stream.in_head = Some(head);
        if end {
            stream.end_inward(None);
        }
        stream.wake(wakers);
        Ok(())
    }

    fn common(&mut self, common: Common, wakers: &mut Wakers) -> Result<(), Violation> {
        match common {
            Common::Data(data) => self.data(data, wakers),
            Common::End(end) => self.end_of(end, wakers),
            Common::Reset(reset) => self.reset_by_peer(&reset, wakers),
            Common::WindowUpdate(update) => self.credit(update, wakers),
            Common::GoAway => {
                self.peer_leaves = true;
                Ok(())
            }
            Common::Error(_) => Ok(()),
        }
    }

    fn data(&mut self, data: Data, wakers: &mut Wakers) -> Result<(), Violation> {
        let Data { stream_id: id, data } = data;
        if data.len() > DATA_BYTES {
            let len = data.len();
            return Err(Violation(format!("{len} bytes in one frame of stream {id}; {DATA_BYTES} may be")));
        }
        let Some(stream) = self.known(id, "data")? else { return Ok(()) };
        if !stream.head_seen || stream.in_done {
            let when = if stream.in_done { "after the end" } else { "before the head" };
            return Err(Violation(format!("data of stream {id} {when}")));
        }
        let len = data.len() as u32;
        if len > stream.window {
            return Err(Violation(format!("stream {id} sends more than it has credit for")));
        }
        stream.window -= len;
        if !data.is_empty() && !stream.unread {
            stream.inbox.push(data);
            wakers[0] = stream.reader.take();
        }
        Ok(())
    }

    fn end_of(&mut self, end: End, wakers: &mut Wakers) -> Result<(), Violation> {
        let id = end.stream_id;
        let Some(stream) = self.known(id, "an end")? else { return Ok(()) };
        if !stream.head_seen || stream.in_done {
            let when = if stream.in_done { "a second time" } else { "before its head" };
            return Err(Violation(format!("stream {id} ends {when}")));
        }
        let trailers: Option<HeaderMap> = trailers_from(end.trailers)?;
        stream.end_inward(trailers);
        stream.wake(wakers);
        Ok(())
    }

    fn reset_by_peer(&mut self, reset: &Reset, wakers: &mut Wakers) -> Result<(), Violation> {
        let id = reset.stream_id;
        let Some(stream) = self.known(id, "a reset")? else { return Ok(()) };
        if S::BEGINS && stream.in_done {
            // Its answer is whole.
            return Ok(());
        }
        if !S::BEGINS {
            // Whoever works on it finds it gone.
            if let Some(mut stream) = self.forget(id) {
                stream.wake(wakers);
            }
            return Ok(());
        }
        stream.stop(match reset.reason() {
            ResetReason::NotSeen => Broken::NotSeen,
            ResetReason::EngineUnreachable => Broken::Unreachable,
            ResetReason::Unspecified | ResetReason::Cancelled | ResetReason::EngineLost => Broken::Lost,
        });
        stream.inbox.clear();
        stream.wake(wakers);
        Ok(())
    }

    fn credit(&mut self, update: WindowUpdate, wakers: &mut Wakers) -> Result<(), Violation> {
        let WindowUpdate { stream_id: id, bytes } = update;
        let Some(stream) = self.known(id, "a window update")? else { return Ok(()) };
        let credit = stream.credit.checked_add(bytes).filter(|credit| *credit <= MAX_CREDIT && bytes > 0);
        let Some(credit) = credit else {
            return Err(Violation(format!("a window update of {bytes} bytes for stream {id}")));
        };
        stream.credit = credit;
        wakers[1] = stream.let_go();
        Ok(())
    }
}

impl<S: Side> Stream<S> {
    /// The peer's half is done. That of the end that answers is the end of the stream.
    fn end_inward(&mut self, trailers: Option<HeaderMap>) {
        self.in_done = true;
        self.trailers = trailers;
        if S::BEGINS {
            self.finish_outward();
        }
    }

    fn wake(&mut self, wakers: &mut Wakers) {
        wakers[0] = self.reader.take();
        wakers[1] = self.sender.take();
    }
}
