//! A stream of requests, served one after the other.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use tokio::time::Sleep;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Code, Status};

use super::Shared;
use super::answer::{self, Answer};
use super::ask;
use super::caller::Caller;
use crate::contract::{Contract, StreamPredictRequest};

/// The answers to the requests of a stream `R`, in their order. The next request is read when the one before has been
/// answered, so those that wait do so on the client's side of the flow control.
///
/// Dropping it cancels the one at work; nobody has heard of those that wait.
pub(super) struct Answers<C: Contract, R> {
    shared: Arc<Shared>,
    caller: Caller,
    requests: R,
    deadline: Option<Pin<Box<Sleep>>>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    state: State,
    dialect: C,
}

enum State {
    Listening,
    Asking(Asking),
    Answering(Box<Answer>),
    Ended,
}

/// Nothing of it is pinned in its place.
impl<C: Contract, R> Unpin for Answers<C, R> {}

type Asking = Pin<Box<dyn Future<Output = Result<Box<Answer>, Status>> + Send>>;

impl<C: Contract, R> Answers<C, R>
where
    R: Stream<Item = Result<C::PredictRequest, Status>> + Unpin,
{
    pub(super) fn new(shared: &Arc<Shared>, caller: Caller, requests: R) -> Self {
        Self {
            deadline: caller.deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline))),
            closing: Box::pin(shared.closing.clone().cancelled_owned()),
            shared: shared.clone(),
            caller,
            requests,
            state: State::Listening,
            dialect: C::default(),
        }
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<C::PredictResponse, Status>>> {
        if let Some(deadline) = &mut self.deadline
            && !matches!(self.state, State::Ended)
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(Status::deadline_exceeded("The time for the call is up."))));
        }
        loop {
            match &mut self.state {
                State::Listening => match self.poll_request(cx) {
                    Poll::Ready(Some(asked)) => self.state = State::Asking(self.ask(asked?.into())?),
                    Poll::Ready(None) => self.state = State::Ended,
                    Poll::Pending => {
                        ready!(self.closing.as_mut().poll(cx));
                        let status = Status::unavailable("The gateway is shutting down. Call again.");
                        return Poll::Ready(Some(Err(status)));
                    }
                },
                State::Asking(asking) => self.state = State::Answering(ready!(asking.as_mut().poll(cx))?),
                State::Answering(answer) => match ready!(answer.poll(cx)) {
                    Some(message) => return Poll::Ready(Some(message.map(Into::into))),
                    None => self.state = State::Listening,
                },
                State::Ended => return Poll::Ready(None),
            }
        }
    }

    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<C::PredictRequest, Status>>> {
        let limit = self.shared.max_message_bytes;
        Pin::new(&mut self.requests).poll_next(cx).map_err(|status| match status.code() {
            // As the gateway says of a body that is too large; tonic calls it out of range.
            Code::OutOfRange => Status::invalid_argument(format!(
                "The request is larger than the {limit} bytes that are allowed, or not what its length says."
            )),
            _ => status,
        })
    }

    fn ask(&self, asked: StreamPredictRequest) -> Result<Asking, Status> {
        let counted = self.shared.tally.begin();
        let request =
            ask::to_http(&asked, &self.caller, self.shared.prompt_as).inspect_err(|_| counted.failed())?;
        let trace_id = asked.metadata.map(|metadata| metadata.trace_id).unwrap_or_default();
        Ok(Box::pin(answer::ask(self.shared.inner.clone(), request, trace_id, counted)))
    }
}

impl<C: Contract, R> Stream for Answers<C, R>
where
    R: Stream<Item = Result<C::PredictRequest, Status>> + Unpin,
{
    type Item = Result<C::PredictResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.poll_answer(cx);
        if let Poll::Ready(Some(Err(_))) = &polled {
            // Nothing follows a status; what is under way ends here and not when somebody drops this.
            self.state = State::Ended;
        }
        polled
    }
}

impl<C: Contract, R> fmt::Debug for Answers<C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}
