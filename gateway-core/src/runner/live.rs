//! What is counted of a runner here. The counters are private to this room: they move through
//! [`Reservation`](super::Reservation) and the registry only.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::board::Seat;
use super::latch::Latch;
use super::ledger::Ledger;
use super::measured::Meter;
use super::reservation::Booking;
use super::{Place, ReportedLoad, ResourceReport};
use crate::health::{Conduct, HealthPolicy, Reluctance};

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
    /// Requests that wait inside the engine, as of its last report, and those that were sent there since it
    /// arrived: they may have to wait too. `None` if it never reported.
    pub queued: Option<u32>,
    /// Tokens, of prompts and of likely answers, that our own requests keep it busy with, as far as they
    /// said.
    pub tokens: u64,
    /// Those of them that belong to prompts whose answer has not begun.
    pub prefill_tokens: u64,
}

impl Load {
    /// A report older than this no longer counts: three missed heartbeats of 30 s.
    pub const STALE: Duration = Duration::from_secs(90);
    /// At how many requests a runner that does not say how many it takes writes half as fast for each of them.
    /// Patel et al. (Splitwise, ISCA 2024) found the time between tokens of a 70B model to double at a batch
    /// of 64.
    pub const DOUBLES_AT: u32 = 64;

    /// The best estimate of requests on the runner now: ours as counted, others' as last reported while
    /// the report is not [stale](Load::STALE).
    pub fn estimate(&self) -> u32 {
        self.in_flight.saturating_add(self.foreign.filter(|_| self.is_fresh()).unwrap_or(0))
    }

    /// Whether there is a report, and it is not [stale](Load::STALE).
    pub fn is_fresh(&self) -> bool {
        self.report_age.is_some_and(|age| age < Self::STALE)
    }

    /// How many times as long it takes to write an answer as it would alone, `ours` of the requests on the
    /// runner not counted: those that ask.
    ///
    /// A runner whose slots are all taken is taken to need twice as long: slots are set to what a machine can
    /// bear. One that does not say how many it has needs twice as long for
    /// [`DOUBLES_AT`](Load::DOUBLES_AT) requests.
    pub(crate) fn slowdown(&self, ours: u32) -> f32 {
        let others = self.estimate().saturating_sub(ours) as f32;
        match self.slots {
            // What is beyond the slots waits, and slows down nobody.
            Some(slots) => 1.0 + (others / slots.get() as f32).min(1.0),
            None => 1.0 + others / Self::DOUBLES_AT as f32,
        }
    }

    /// Whether every known slot is taken by our own requests.
    pub fn is_full(&self) -> bool {
        self.slots.is_some_and(|slots| self.in_flight >= slots.get())
    }
}

/// What is counted of one registration, shared by all snapshots of it.
// In this order, so that what every request writes lies together.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Live {
    tokens: AtomicU64,
    prefill_tokens: AtomicU64,
    meter: Meter,
    conduct: Conduct,
    seat: Seat,
    known_slots: Option<NonZeroU32>,
    /// Of the machine, and so the same for a runner that comes back while requests of ours use it.
    ledger: Arc<Ledger>,
    /// Counts requests that name no model. Never closed.
    unnamed: Latch,
    /// How often a snapshot of it took another's place.
    changes: AtomicU64,
    draining: AtomicBool,
    left: AtomicBool,
    /// Report time in ms since `born`, plus one; 0: never reported.
    reported_at: AtomicU64,
    /// Time of the last status, with or without its load, in ms since `born`.
    heard_at: AtomicU64,
    foreign: AtomicU32,
    /// What the last report said of the engine's queue.
    queued: AtomicU32,
    /// Our own requests as they were when it last reported.
    ours_at_report: AtomicU32,
    /// How much of `foreign` is on the board: nothing once the report is stale.
    foreign_on_board: AtomicU32,
    born: Instant,
    left_signal: Notify,
    idle_signal: Notify,
}

impl Live {
    pub(crate) fn new(slots: Option<NonZeroU32>, place: &Place, ledger: Arc<Ledger>) -> Self {
        let seat = place.board.seat(slots);
        let born = Instant::now();
        Self {
            known_slots: slots,
            conduct: Conduct::new(born, fastrand::u64(..), seat.sign()),
            seat,
            tokens: AtomicU64::new(0),
            prefill_tokens: AtomicU64::new(0),
            ledger,
            unnamed: Latch::new(),
            meter: Meter::new(),
            changes: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            left: AtomicBool::new(false),
            reported_at: AtomicU64::new(0),
            heard_at: AtomicU64::new(0),
            foreign: AtomicU32::new(0),
            queued: AtomicU32::new(0),
            ours_at_report: AtomicU32::new(0),
            foreign_on_board: AtomicU32::new(0),
            born,
            left_signal: Notify::new(),
            idle_signal: Notify::new(),
        }
    }

    /// Counts the tokens of a request.
    pub(crate) fn book(&self, booking: &Booking) {
        if booking.tokens > 0 {
            self.tokens.fetch_add(u64::from(booking.tokens), Ordering::Relaxed);
        }
        if booking.prefill_tokens > 0 {
            self.prefill_tokens.fetch_add(u64::from(booking.prefill_tokens), Ordering::Relaxed);
        }
    }

    pub(crate) fn unbook(&self, booking: &Booking) {
        self.prefilled(booking.prefill_tokens);
        if booking.tokens > 0 {
            self.tokens.fetch_sub(u64::from(booking.tokens), Ordering::Relaxed);
        }
    }

    /// Its last slot was given back.
    pub(crate) fn became_idle(&self) {
        self.idle_signal.notify_waiters();
    }

    pub(crate) fn prefilled(&self, tokens: u32) {
        if tokens > 0 {
            self.prefill_tokens.fetch_sub(u64::from(tokens), Ordering::Relaxed);
        }
    }

    /// Takes in what the runner says. Whether more of its resources is free than before.
    pub(crate) fn report(&self, load: Option<ReportedLoad>, resources: &ResourceReport) -> bool {
        let now = Instant::now();
        let at = u64::try_from((now - self.born).as_millis()).unwrap_or(u64::MAX - 1);
        self.heard_at.store(at, Ordering::Relaxed);
        let is_more_free = self.ledger.report(resources, now);
        if let Some(load) = load {
            self.report_load(load, at);
        }
        is_more_free
    }

    fn report_load(&self, load: ReportedLoad, at: u64) {
        // A report is older than its arrival, by how much nobody knows. Requests that have ended since are in
        // its figure and must not be taken for others'.
        let now = self.seat.taken();
        let ours = now.max(self.ours_at_report.swap(now, Ordering::Relaxed));
        let all = load.active.saturating_add(load.queued);
        // The runner's figure has our own requests in it; only the rest is news.
        let foreign = all.saturating_sub(ours);
        self.foreign.store(foreign, Ordering::Relaxed);
        self.queued.store(load.queued, Ordering::Relaxed);
        // Before it is shown: see `expire_report`.
        self.reported_at.store(at + 1, Ordering::SeqCst);
        self.show_foreign(foreign);
    }

    fn show_foreign(&self, foreign: u32) {
        let before = self.foreign_on_board.swap(foreign, Ordering::SeqCst);
        self.seat.show(foreign, before);
    }

    /// Takes a report that has become stale off the board.
    pub(crate) fn expire_report(&self, now: Instant) {
        let is_stale = || self.load(now).report_age.is_some_and(|age| age >= Load::STALE);
        if self.foreign_on_board.load(Ordering::Relaxed) > 0 && is_stale() {
            self.show_foreign(0);
            if !is_stale() {
                // A report came in between, and its figure may have been the one that was taken off.
                self.show_foreign(self.foreign.load(Ordering::Relaxed));
            }
        }
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
        let in_flight = self.seat.taken();
        let since = in_flight.saturating_sub(self.ours_at_report.load(Ordering::Relaxed));
        let queued = report_age.map(|_| self.queued.load(Ordering::Relaxed).saturating_add(since));
        Load {
            in_flight,
            slots: self.known_slots,
            foreign,
            report_age,
            queued,
            tokens: self.tokens.load(Ordering::Relaxed),
            prefill_tokens: self.prefill_tokens(),
        }
    }

    pub(crate) fn seat(&self) -> &Seat {
        &self.seat
    }

    pub(crate) fn conduct(&self) -> &Conduct {
        &self.conduct
    }

    /// How little it should be used now, as [`Conduct::reluctance`].
    pub(crate) fn reluctance(&self, chance: f64, policy: &HealthPolicy) -> Option<Reluctance> {
        let busy = self.known_slots.map(|slots| (self.seat.taken(), slots.get()));
        self.conduct.reluctance(Instant::now(), chance, busy, policy)
    }

    pub(crate) fn unnamed(&self) -> &Latch {
        &self.unnamed
    }

    /// Tokens of prompts whose answer has not begun.
    pub(crate) fn prefill_tokens(&self) -> u64 {
        self.prefill_tokens.load(Ordering::Relaxed)
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    pub(crate) fn born(&self) -> Instant {
        self.born
    }

    pub(crate) fn heard(&self) -> Instant {
        self.born + Duration::from_millis(self.heard_at.load(Ordering::Relaxed))
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// What is known of it is about to change, by a snapshot that takes its place.
    pub(crate) fn change(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
        self.seat.close(draining);
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

    /// The caller is counted by the bell as one who waits for this.
    pub(crate) async fn idle(&self) {
        wait_for(&self.idle_signal, || self.seat.taken() == 0).await;
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

    fn take(live: &Live) -> bool {
        live.seat().take_anyway()
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_counts_what_is_not_ours_and_ages() {
        let live = Live::new(NonZeroU32::new(4), &Place::default(), Arc::default());
        assert_eq!(live.load(Instant::now()).foreign, None);
        assert!(take(&live));
        live.report(Some(ReportedLoad { active: 3, queued: 1 }), &ResourceReport::default());
        assert_eq!(live.load(Instant::now()).estimate(), 4);
        assert_eq!(live.load(Instant::now()).queued, Some(1));
        assert!(take(&live));
        assert_eq!(live.load(Instant::now()).queued, Some(2), "sent since, so it may wait as well");
        live.seat().give_back();
        tokio::time::advance(Load::STALE).await;
        assert_eq!(live.load(Instant::now()).report_age, Some(Load::STALE));
        assert_eq!(live.load(Instant::now()).estimate(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn slots_are_a_hard_limit() {
        let live = Live::new(NonZeroU32::new(2), &Place::default(), Arc::default());
        assert!(take(&live) && take(&live) && !take(&live));
        live.seat().give_back();
        assert!(take(&live));
    }
}
