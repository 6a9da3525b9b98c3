//! One stream.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::Bytes;
use http::HeaderMap;

use super::inbox::Inbox;
use super::{STREAM_WINDOW, Side};

/// Most chunks that wait to be sent on one stream, so that tiny ones do not add up beside their bytes.
const QUEUED_CHUNKS: usize = 64;

pub(super) struct Stream<S: Side> {
    // Outward.
    /// Not yet written.
    pub(super) head: Option<S::Out>,
    pub(super) head_sent: bool,
    /// What the peer still takes, in bytes, of what is not queued yet.
    pub(super) credit: u32,
    queued: VecDeque<Bytes>,
    /// Comes after what is queued; empty trailers are none.
    end: Option<HeaderMap>,
    /// The end is queued or written.
    pub(super) out_done: bool,
    /// In the ring of those with something to send.
    pub(super) in_ring: bool,
    pub(super) sender: Option<Waker>,
    /// The sender waits until it may queue more, and not only for the stream's end.
    pub(super) held_back: bool,
    // Inward.
    pub(super) in_head: Option<S::Head>,
    pub(super) head_seen: bool,
    pub(super) inbox: Inbox,
    /// What the peer may still send, in bytes.
    pub(super) window: u32,
    /// What the reader has taken and the peer was not yet told.
    pub(super) owed: u32,
    /// A window update waits to be written.
    pub(super) update_waits: bool,
    /// Nobody reads any more: what comes is dropped, and the peer gets no credit for it.
    pub(super) unread: bool,
    pub(super) in_done: bool,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) reader: Option<Waker>,
    /// It has ended out of turn.
    pub(super) broken: Option<Broken>,
}

/// How a stream ended out of turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The peer has not looked at it, or it was never sent.
    NotSeen,
    /// The peer's engine could not be reached.
    Unreachable,
    /// The peer gave it up after it may have begun.
    Lost,
    /// The connection ended after the peer may have seen it.
    Disconnected,
}

/// What a stream has to send next.
pub(super) enum Next {
    Data(Bytes),
    End(HeaderMap),
}

impl<S: Side> Stream<S> {
    pub(super) fn new() -> Self {
        Self {
            head: None,
            head_sent: false,
            credit: STREAM_WINDOW,
            queued: VecDeque::new(),
            end: None,
            out_done: false,
            in_ring: false,
            sender: None,
            held_back: false,
            in_head: None,
            head_seen: false,
            inbox: Inbox::default(),
            window: STREAM_WINDOW,
            owed: 0,
            update_waits: false,
            unread: false,
            in_done: false,
            trailers: None,
            reader: None,
            broken: None,
        }
    }

    /// Takes as much of the chunk as may be queued.
    pub(super) fn queue(&mut self, chunk: &mut Bytes) {
        if self.can_queue() {
            let len = chunk.len().min(self.credit as usize);
            self.credit -= len as u32;
            self.queued.push_back(chunk.split_to(len));
        }
    }

    pub(super) fn can_queue(&self) -> bool {
        self.credit > 0 && self.queued.len() < QUEUED_CHUNKS
    }

    /// Whoever waits until it may queue more, if it may: nobody is woken for nothing.
    pub(super) fn let_go(&mut self) -> Option<Waker> {
        if !self.held_back || !self.can_queue() {
            return None;
        }
        self.held_back = false;
        self.sender.take()
    }

    pub(super) fn queue_end(&mut self, trailers: HeaderMap) {
        self.end = Some(trailers);
        self.out_done = true;
    }

    /// Whether there is something to send now.
    pub(super) fn is_ready(&self) -> bool {
        self.head_sent && (!self.queued.is_empty() || self.end.is_some())
    }

    /// The next of what is to be sent, at most `most` bytes.
    pub(super) fn next(&mut self, most: usize) -> Option<Next> {
        let Some(chunk) = self.queued.front_mut() else { return self.end.take().map(Next::End) };
        if chunk.len() > most {
            return Some(Next::Data(chunk.split_to(most)));
        }
        self.queued.pop_front().map(Next::Data)
    }

    /// Nothing more goes out or comes in.
    pub(super) fn stop(&mut self, why: Broken) {
        self.broken.get_or_insert(why);
        self.finish_outward();
        self.in_done = true;
        self.head = None;
    }

    /// The peer wants no more of it.
    pub(super) fn finish_outward(&mut self) {
        self.queued = VecDeque::new();
        self.end = None;
        self.out_done = true;
    }

    pub(super) fn wakers(&mut self) -> impl Iterator<Item = Waker> {
        self.reader.take().into_iter().chain(self.sender.take())
    }
}
