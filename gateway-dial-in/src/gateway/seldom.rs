//! Waiting for what seldom comes, in a task that wakes often for something else.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use pin_project_lite::pin_project;

pin_project! {
    /// Polls its future only when that has been woken itself, and not whenever the task is: a look at it costs next to
    /// nothing.
    pub(super) struct Seldom<F> {
        #[pin]
        future: F,
        bell: Arc<Bell>,
        waker: Waker,
        // Whom the bell wakes.
        task: Option<Waker>,
    }
}

struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<F> Seldom<F> {
    pub(super) fn new(future: F) -> Self {
        // The first look is always taken.
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { future, waker: bell.clone().into(), bell, task: None }
    }
}

impl<F: Future> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let is_known = this.task.as_ref().is_some_and(|task| task.will_wake(cx.waker()));
        if is_known && !this.bell.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        // Before the look, and anew after each ring: who rings after it wakes the task.
        this.bell.task.register(cx.waker());
        *this.task = Some(cx.waker().clone());
        if !this.bell.rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        this.future.poll(&mut Context::from_waker(this.waker))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::ready;

    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_when_it_is_woken_and_only_then() {
        let (send, mut receive) = oneshot::channel();
        let mut polls = 0;
        let seldom = Seldom::new(poll_fn(|cx| {
            polls += 1;
            let received = ready!(receive.poll_unpin(cx));
            Poll::Ready((received, polls))
        }));
        let mut seldom = Box::pin(seldom);
        for _ in 0..5 {
            assert!(seldom.as_mut().now_or_never().is_none());
        }
        // Woken from another task while this one waits.
        tokio::spawn(async move { send.send("now") });
        assert_eq!(seldom.await, (Ok("now"), 2));
    }
}
