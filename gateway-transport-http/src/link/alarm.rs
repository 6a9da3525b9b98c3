//! The waker of one connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

/// Between a connection's socket and whoever waits for it.
///
/// A connection is driven by the task that waits for its answer, and that task changes with every request.
/// Were the tasks' own wakers handed to the connection, the next request would wake the last one's task,
/// and each chunk would wake the task that is just reading it. So the connection sees one waker all its
/// life, and this decides what a wake-up means at the moment.
pub(super) struct Alarm {
    state: AtomicU8,
    waiter: AtomicWaker,
    /// Rung when an idle connection stirs, which means that the runner closed it.
    stirred: Arc<Notify>,
}

/// In the pool; nobody waits.
const IDLE: u8 = 0;
/// Somebody waits.
const WATCHED: u8 = 1;
/// Somebody polls it right now, or has had a result and will poll again before waiting.
const POLLED: u8 = 2;
/// Set beside one of the others: it rang since.
const RANG: u8 = 4;

impl Alarm {
    pub(super) fn new(stirred: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { state: AtomicU8::new(POLLED), waiter: AtomicWaker::new(), stirred })
    }

    /// Sets who is woken.
    pub(super) fn watch(&self, waiter: &Waker) {
        self.waiter.register(waiter);
    }

    /// Whether there is nothing to do but to wait: nothing rang since it was last waited for.
    pub(super) fn is_quiet(&self) -> bool {
        self.state.load(Ordering::SeqCst) == WATCHED
    }

    /// From here on a wake-up is only noted.
    pub(super) fn begin(&self) {
        self.state.store(POLLED, Ordering::SeqCst);
    }

    /// From here on a wake-up wakes the waiter. `true` if one came since `begin`: then nothing has changed, and it
    /// has to be polled again.
    pub(super) fn end(&self) -> bool {
        self.state.compare_exchange(POLLED, WATCHED, Ordering::SeqCst, Ordering::SeqCst).is_err()
    }

    /// From here on a wake-up means that the connection is of no use any more.
    pub(super) fn rest(&self) {
        self.state.store(IDLE, Ordering::SeqCst);
        // A waker keeps its task's memory.
        drop(self.waiter.take());
    }

    /// Whether it rang since the last change of state.
    pub(super) fn rang(&self) -> bool {
        self.state.load(Ordering::SeqCst) & RANG != 0
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match self.state.fetch_or(RANG, Ordering::SeqCst) {
            WATCHED => self.waiter.wake(),
            IDLE => self.stirred.notify_one(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn wakes_only_who_waits() {
        let alarm = Alarm::new(Arc::default());
        let bell = Waker::from(alarm.clone());
        let count = Arc::new(Count::default());
        alarm.watch(&Waker::from(count.clone()));

        alarm.begin();
        bell.wake_by_ref();
        assert_eq!(count.0.load(Ordering::SeqCst), 0, "woken while it polls");
        assert!(alarm.end(), "a wake-up during the poll is lost");
        assert!(!alarm.is_quiet(), "what rang is not looked at");
        alarm.begin();
        assert!(!alarm.end());
        assert!(alarm.is_quiet());
        bell.wake_by_ref();
        assert!(!alarm.is_quiet());
        assert_eq!(count.0.load(Ordering::SeqCst), 1);

        alarm.rest();
        assert!(!alarm.rang() && !alarm.is_quiet());
        bell.wake_by_ref();
        assert_eq!(count.0.load(Ordering::SeqCst), 1, "woken for a connection it no longer has");
        assert!(alarm.rang());
    }
}
