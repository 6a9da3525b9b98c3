//! One request's waiting, from its place in the queue to its end.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::admission::{Handed, Hopeless};
use super::room::Seated;
use super::{AdmissionQueue, Picker, Priority, QueueError, QueueErrorKind, Tenant, WaitEnd, Waited};
use crate::names::ModelId;

/// Whose waiting it is, for those who are told of its end.
pub(super) struct Who<'q, P: Picker> {
    pub(super) queue: &'q AdmissionQueue<P>,
    pub(super) model: Option<ModelId>,
    pub(super) tenant: Option<Tenant>,
    pub(super) priority: Priority,
    pub(super) since: Instant,
}

impl<P: Picker> Who<'_, P> {
    pub(super) fn tell(&self, end: WaitEnd) {
        self.queue.tell(&Waited {
            model: self.model.as_ref(),
            tenant: self.tenant.as_ref(),
            priority: self.priority,
            waited: self.since.elapsed(),
            end,
        });
    }

    fn error(&self, kind: QueueErrorKind) -> QueueError {
        let retry_after = self.queue.retry_after(&self.model);
        QueueError { kind, retry_after, waited: self.since.elapsed() }
    }
}

/// A place in the queue. Dropping it gives it up.
pub(super) struct Place<'q, P: Picker> {
    who: Who<'q, P>,
    seated: Seated,
    /// Dropped after the place was given up: what was handed over and not received goes on to the next.
    handed: oneshot::Receiver<Handed<P>>,
    end: Option<Instant>,
    is_over: bool,
}

enum Event<P: Picker> {
    Handed(Result<Handed<P>, oneshot::error::RecvError>),
    Time,
    Called,
}

impl<'q, P: Picker> Place<'q, P> {
    pub(super) fn new(
        who: Who<'q, P>,
        seated: Seated,
        handed: oneshot::Receiver<Handed<P>>,
        end: Option<Instant>,
    ) -> Self {
        Self { who, seated, handed, end, is_over: false }
    }

    pub(super) async fn wait(&mut self) -> Result<P::Choice, QueueError> {
        let queue = self.who.queue;
        let call = self.seated.call.clone();
        let mut called = pin!(call.notified());
        let mut look = self.seated.look;
        let mut timer = pin!(sleep_until(self.who.since));
        loop {
            let at = self.end.into_iter().chain(look).min();
            if let Some(at) = at {
                timer.as_mut().reset(at);
            }
            let handed = &mut self.handed;
            // A slot that is here goes before the end of patience.
            let event = poll_fn(|cx| {
                if let Poll::Ready(handed) = Pin::new(&mut *handed).poll(cx) {
                    return Poll::Ready(Event::<P>::Handed(handed));
                }
                if at.is_some() && timer.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Event::Time);
                }
                called.as_mut().poll(cx).map(|()| Event::Called)
            });
            match event.await {
                Event::Handed(handed) => return self.received(handed),
                Event::Time if self.end.is_some_and(|end| end <= Instant::now()) => {
                    let Some(mut gone) = queue.leave(self.seated.ticket) else {
                        // Somebody is about to hand over.
                        let handed = (&mut self.handed).await;
                        return self.received(handed);
                    };
                    gone.wake_heir();
                    return Err(self.fail(QueueErrorKind::TimedOut));
                }
                Event::Time => look = queue.look(&self.seated),
                Event::Called => {
                    called.set(call.notified());
                    look = queue.watch(&self.seated);
                    queue.serve();
                }
            }
        }
    }

    fn received(
        &mut self,
        handed: Result<Handed<P>, oneshot::error::RecvError>,
    ) -> Result<P::Choice, QueueError> {
        match handed {
            Ok(Ok(choice)) => {
                self.over(WaitEnd::Served);
                Ok(choice)
            }
            Ok(Err(Hopeless)) => Err(self.fail(QueueErrorKind::NotEligible)),
            // The thread that was to hand over panicked.
            Err(_) => Err(self.fail(QueueErrorKind::TimedOut)),
        }
    }

    fn fail(&mut self, kind: QueueErrorKind) -> QueueError {
        self.over(kind.into());
        self.who.error(kind)
    }

    fn over(&mut self, end: WaitEnd) {
        self.is_over = true;
        self.who.tell(end);
    }
}

impl<P: Picker> Drop for Place<'_, P> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if let Some(mut gone) = self.who.queue.leave(self.seated.ticket) {
            gone.wake_heir();
        }
        self.over(WaitEnd::Cancelled);
    }
}
