//! Reads one side of the call, for whoever speaks on it.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use gateway_core::BoxError;
use http_body::Body;
use prost::Message;

use super::mux::{Handle, Mux, Side, Taken, Violation};
use super::wire::{Messages, ReadError};
use crate::proto::runner_gateway::Error;

/// Most frames that are read before others get their turn.
const READ_BUDGET: usize = 64;

/// Hands data to its streams as it comes, whatever their readers do, and everything else to its caller.
pub(super) struct Reader<S: Side, B> {
    messages: Messages<B>,
    mux: Arc<Mux<S>>,
}

/// What is not data.
pub(super) enum Event<S: Side> {
    Word(S::Word),
    /// The peer has begun a stream.
    Begun(Handle<S>, S::Head),
    /// The peer says what is wrong, and is about to end the call.
    Error(Error),
    /// Its side of the call has ended.
    End,
}

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("{0}")]
    Violation(#[from] Violation),
    #[error("the call broke: {0}")]
    Broken(BoxError),
}

impl From<ReadError> for Ended {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Broken(error) => Self::Broken(error),
            wrong => Self::Violation(Violation(wrong.to_string())),
        }
    }
}

impl<S: Side, B> Reader<S, B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    pub(super) fn new(messages: Messages<B>, mux: Arc<Mux<S>>) -> Self {
        Self { messages, mux }
    }

    pub(super) fn messages(&self) -> &Messages<B> {
        &self.messages
    }

    /// Ready when the peer's side of the call has ended. What comes until then is dropped.
    pub(super) fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.messages.poll_drained(cx)
    }

    /// The next that is not data.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event<S>, Ended>> {
        for _ in 0..READ_BUDGET {
            let Some(message) = ready!(self.messages.poll_next(cx))? else {
                return Poll::Ready(Ok(Event::End));
            };
            match self.mux.take(decode::<S::In>(message)?)? {
                Taken::Word(word) => return Poll::Ready(Ok(Event::Word(word))),
                Taken::Begun(handle, head) => return Poll::Ready(Ok(Event::Begun(handle, head))),
                Taken::Error(error) => return Poll::Ready(Ok(Event::Error(error))),
                Taken::Done => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A frame out of a message.
pub(super) fn decode<M: Message + Default>(message: Bytes) -> Result<M, Violation> {
    // Not what stands there: it may be the token.
    M::decode(message).map_err(|_| Violation("a message is no frame of this protocol".to_owned()))
}
