//! The body of an answer that is streamed.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use gateway_core::LinkError;
use http_body::{Body, Frame};

use super::reader::{Fault, Reader, Step};
use crate::translate::Events;

/// Chunks that are already here go out together up to so many bytes; none is waited for.
const TOGETHER: usize = 16 * 1024;

/// Makes events of an answer as it comes. Dropping it cancels the call.
pub(super) struct Answer {
    reader: Reader,
    events: Events,
    /// What is told after what went before.
    then: Then,
}

enum Then {
    More,
    Fault(Fault),
    End,
}

impl Answer {
    pub(super) fn new(reader: Reader, events: Events) -> Self {
        Self { reader, events, then: Then::More }
    }

    /// What is here. Waits only if that is nothing.
    fn poll_events(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Fault>>> {
        while matches!(self.then, Then::More) && self.events.len() < TOGETHER {
            match self.reader.poll_step(cx, &mut self.events) {
                Poll::Ready(Ok(Step::Text)) => {}
                Poll::Ready(Ok(Step::Done(told))) => {
                    self.events.finish(told);
                    self.then = Then::End;
                }
                Poll::Ready(Err(fault)) => self.then = Then::Fault(fault),
                Poll::Pending if self.events.len() == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if self.events.len() > 0 {
            return Poll::Ready(Some(Ok(self.events.take())));
        }
        match std::mem::replace(&mut self.then, Then::End) {
            Then::Fault(fault) => Poll::Ready(Some(Err(fault))),
            _ => Poll::Ready(None),
        }
    }

    /// Waits for the first events, so that a worker that declines can be told apart from one that has begun.
    pub(super) async fn begin(mut self) -> Result<Begun, Fault> {
        let first = std::future::poll_fn(|cx| self.poll_events(cx)).await.transpose()?;
        Ok(Begun { first, rest: self })
    }
}

/// An answer of which the first is here.
pub(super) struct Begun {
    first: Option<Bytes>,
    rest: Answer,
}

impl Body for Begun {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        this.rest
            .poll_events(cx)
            .map(|events| events.map(|events| events.map(Frame::data).map_err(Fault::into_link_error)))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && matches!(self.rest.then, Then::End) && self.rest.events.len() == 0
    }
}
