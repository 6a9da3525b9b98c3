//! What goes to the peer, and in which order.

use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::stream::Next;
use super::{Common, DATA_BYTES, Mux, Side, State, remember};
use crate::dial_in::wire::{encode, encode_data, trailers_to};
use crate::proto::runner_gateway::{End, WindowUpdate};

/// So many bytes are put together before they are handed on, so that many small frames cost one.
const BATCH: usize = 16 * 1024;

/// A chunk from this size on is handed on as it is; a smaller one is cheaper to copy than to send by itself.
const NOT_COPIED_FROM: usize = 2 * 1024;

/// What was put together.
pub(crate) enum Filled {
    /// What is in the buffer is to be sent, and then this.
    Bytes(Option<Bytes>),
    /// This end says no more.
    Farewell(HeaderMap),
}

impl<S: Side> Mux<S> {
    /// Puts frames into `buffer`: words first, then what ends and goes on, then heads, then data, of every stream
    /// one frame in turn.
    pub(crate) fn fill(&self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<Filled> {
        let mut wakers: Vec<Waker> = Vec::new();
        let filled = {
            let mut state = self.state();
            let filled = state.fill(buffer, &mut wakers);
            if state.is_finished() {
                wakers.extend(state.finisher.take());
            }
            if filled.is_pending() {
                remember(&mut state.writer, cx.waker());
            }
            filled
        };
        wakers.into_iter().for_each(Waker::wake);
        filled
    }
}

impl<S: Side> State<S> {
    fn fill(&mut self, buffer: &mut BytesMut, wakers: &mut Vec<Waker>) -> Poll<Filled> {
        while buffer.len() < BATCH {
            if let Some(word) = self.words.pop_front() {
                encode(&word, buffer);
                continue;
            }
            if self.farewell.is_some() {
                break;
            }
            if let Some(reset) = self.resets.pop_front() {
                encode(&S::frame(Common::Reset(reset)), buffer);
            } else if let Some(id) = self.updates.pop_front() {
                self.write_update(id, buffer);
            } else if let Some(id) = self.heads.pop_front() {
                self.write_head(id, buffer, wakers);
            } else if let Some(id) = self.ring.pop_front() {
                if let Some(payload) = self.write_turn(id, buffer, wakers) {
                    return Poll::Ready(Filled::Bytes(Some(payload)));
                }
            } else {
                break;
            }
        }
        if !buffer.is_empty() {
            return Poll::Ready(Filled::Bytes(None));
        }
        match &mut self.farewell {
            Some(trailers) => Poll::Ready(Filled::Farewell(std::mem::take(trailers))),
            None => Poll::Pending,
        }
    }

    fn write_update(&mut self, id: u64, buffer: &mut BytesMut) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.update_waits = false;
        let bytes = std::mem::take(&mut stream.owed);
        stream.window += bytes;
        if bytes > 0 && !stream.in_done {
            encode(&S::frame(Common::WindowUpdate(WindowUpdate { stream_id: id, bytes })), buffer);
        }
    }

    fn write_head(&mut self, id: u64, buffer: &mut BytesMut, wakers: &mut Vec<Waker>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(head) = stream.head.take() else { return };
        encode(&head, buffer);
        stream.head_sent = true;
        if stream.is_ready() {
            stream.in_ring = true;
            self.ring.push_back(id);
        } else if stream.out_done {
            self.sent_all(id, wakers);
        }
    }

    /// One frame of a stream whose turn it is. What is given back is the rest of the frame.
    fn write_turn(&mut self, id: u64, buffer: &mut BytesMut, wakers: &mut Vec<Waker>) -> Option<Bytes> {
        let stream = self.streams.get_mut(&id)?;
        stream.in_ring = false;
        let mut payload = None;
        match stream.next(DATA_BYTES)? {
            Next::Data(data) => {
                encode_data(id, data.len(), buffer);
                if data.len() < NOT_COPIED_FROM {
                    buffer.extend_from_slice(&data);
                } else {
                    payload = Some(data);
                }
                wakers.extend(stream.let_go());
                if stream.is_ready() {
                    stream.in_ring = true;
                    self.ring.push_back(id);
                }
            }
            Next::End(trailers) => {
                let end = End { stream_id: id, trailers: trailers_to(&trailers) };
                encode(&S::frame(Common::End(end)), buffer);
                self.sent_all(id, wakers);
            }
        }
        payload
    }

    /// Our half of the stream is written. That of the end that answers is the end of the stream.
    fn sent_all(&mut self, id: u64, wakers: &mut Vec<Waker>) {
        if !S::BEGINS
            && let Some(mut stream) = self.forget(id)
        {
            // Whoever still reads the request learns that nobody wants to know.
            wakers.extend(stream.wakers());
        }
    }
}
