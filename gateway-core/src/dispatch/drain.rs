//! How many requests are under way, and the end of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::runner::wait_for;

#[derive(Debug, Default)]
pub(super) struct Drain {
    in_flight: AtomicUsize,
    closed: AtomicBool,
    idle: Notify,
}

impl Drain {
    /// `None` once closed.
    pub(super) fn enter(self: &Arc<Self>) -> Option<InFlight> {
        // Counted before the look at `closed`: whoever closes and then reads zero has missed nobody.
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let guard = InFlight(self.clone());
        (!self.closed.load(Ordering::SeqCst)).then_some(guard)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    pub(super) async fn idle(&self) {
        wait_for(&self.idle, || self.in_flight() == 0).await;
    }
}

/// One request under way.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Drain>);

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}
