//! What is counted of a runner here. The counters are private to this room: they move through
//! [`Reservation`](super::Reservation) and the registry only.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::ReportedLoad;

/// How busy a runner is: what is counted here, and what it said and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Reservations held here at this moment.
    pub in_flight: u32,
    /// The most it takes at once, if known.
    pub slots: Option<NonZeroU32>,
    /// Requests on the runner that are not ours, as of its last report; `None` if it never reported.
    pub foreign: Option<u32>,
    /// How old that report is.
    pub report_age: Option<Duration>,
}

impl Load {
    /// A report older than this no longer counts: three missed heartbeats of 30 s.
    pub const STALE: Duration = Duration::from_secs(90);

    /// The best estimate of requests on the runner now: ours as counted, others' as last reported while
    /// the report is not [stale](Load::STALE).
    pub fn estimate(&self) -> u32 {
        let fresh = self.report_age.is_some_and(|age| age < Self::STALE);
        self.in_flight.saturating_add(self.foreign.filter(|_| fresh).unwrap_or(0))
    }

    /// Whether every known slot is taken by our own requests.
    pub fn is_full(&self) -> bool {
        self.slots.is_some_and(|slots| self.in_flight >= slots.get())
    }
}

#[derive(Debug)]
pub(crate) struct Live {
    in_flight: AtomicU32,
    /// 0: unknown, no limit.
    slots: u32,
    draining: AtomicBool,
    left: AtomicBool,
    /// Report time in ms since `born`, plus one; 0: never reported.
    reported_at: AtomicU64,
    /// Time of the last status, with or without its load, in ms since `born`.
    heard_at: AtomicU64,
    foreign: AtomicU32,
    born: Instant,
    left_signal: Notify,
    idle_signal: Notify,
}

impl Live {
    pub(crate) fn new(slots: Option<NonZeroU32>) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            slots: slots.map_or(0, NonZeroU32::get),
            draining: AtomicBool::new(false),
            left: AtomicBool::new(false),
            reported_at: AtomicU64::new(0),
            heard_at: AtomicU64::new(0),
            foreign: AtomicU32::new(0),
            born: Instant::now(),
            left_signal: Notify::new(),
            idle_signal: Notify::new(),
        }
    }

    pub(crate) fn take(&self) -> bool {
        let limit = if self.slots == 0 { u32::MAX } else { self.slots };
        let next = |now: u32| (now < limit).then(|| now + 1);
        self.in_flight.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next).is_ok()
    }

    pub(crate) fn give_back(&self) {
        let before = self.in_flight.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "a reservation was given back twice");
        if before == 1 {
            self.idle_signal.notify_waiters();
        }
    }

    pub(crate) fn report(&self, load: Option<ReportedLoad>) {
        let at = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.heard_at.store(at, Ordering::Relaxed);
        let Some(load) = load else { return };
        let ours = self.in_flight.load(Ordering::Relaxed);
        let all = load.active.saturating_add(load.queued);
        // The runner's figure has our own requests in it; only the rest is news.
        self.foreign.store(all.saturating_sub(ours), Ordering::Relaxed);
        self.reported_at.store(at + 1, Ordering::Release);
    }

    pub(crate) fn load(&self, now: Instant) -> Load {
        let reported = self.reported_at.load(Ordering::Acquire);
        let (foreign, report_age) = match reported.checked_sub(1) {
            None => (None, None),
            Some(at) => {
                let age = now.saturating_duration_since(self.born).saturating_sub(Duration::from_millis(at));
                (Some(self.foreign.load(Ordering::Relaxed)), Some(age))
            }
        };
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        Load { in_flight, slots: NonZeroU32::new(self.slots), foreign, report_age }
    }

    pub(crate) fn born(&self) -> Instant {
        self.born
    }

    pub(crate) fn heard(&self) -> Instant {
        self.born + Duration::from_millis(self.heard_at.load(Ordering::Relaxed))
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// Nothing new may be reserved from now on.
    pub(crate) fn leave(&self) {
        self.set_draining(true);
        self.left.store(true, Ordering::Release);
        self.left_signal.notify_waiters();
    }

    pub(crate) async fn left(&self) {
        wait_for(&self.left_signal, || self.has_left()).await;
    }

    pub(crate) async fn idle(&self) {
        wait_for(&self.idle_signal, || self.in_flight.load(Ordering::Acquire) == 0).await;
    }
}

/// Waits until `done`; whoever makes it true calls `notify_waiters` afterwards.
pub(crate) async fn wait_for(signal: &Notify, done: impl Fn() -> bool) {
    loop {
        let mut woken = std::pin::pin!(signal.notified());
        // Registered before the check, so that a signal between check and wait is not lost.
        woken.as_mut().enable();
        if done() {
            return;
        }
        woken.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_report_counts_what_is_not_ours_and_ages() {
        let live = Live::new(NonZeroU32::new(4));
        assert_eq!(live.load(Instant::now()).foreign, None);
        assert!(live.take());
        live.report(Some(ReportedLoad { active: 3, queued: 1 }));
        assert_eq!(live.load(Instant::now()).estimate(), 4);
        tokio::time::advance(Load::STALE).await;
        assert_eq!(live.load(Instant::now()).report_age, Some(Load::STALE));
        assert_eq!(live.load(Instant::now()).estimate(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn slots_are_a_hard_limit() {
        let live = Live::new(NonZeroU32::new(2));
        assert!(live.take() && live.take() && !live.take());
        live.give_back();
        assert!(live.take());
    }
}
