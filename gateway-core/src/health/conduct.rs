use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::{Admitted, Breaker};
use super::gate::{Phase, Probe, Turn, View};
use super::hold::Hold;
use super::outlier::{Ejection, Figures, OutlierPolicy};
use super::warmup::Warmup;
use super::{BreakerState, HealthPolicy, Standing, ms};
use crate::dispatch::Outcome;
use crate::runner::Sign;
use crate::window::{Counted, Window};

/// How little a runner should be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reluctance {
    /// As much as any other.
    None,
    /// Less than others: it is warming up or was ejected. Used when nobody else is.
    Some,
    /// Only if there is nobody else at all: it could not be reached, or asked to be left alone for a while.
    Much,
}

impl Reluctance {
    /// The least first.
    pub(crate) const ALL: [Self; 3] = [Self::None, Self::Some, Self::Much];
}

/// What a try's end, or its first byte, changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The breaker opened, or opened again.
    Opened,
    /// The breaker closed.
    Closed,
    /// It could not be reached, too often.
    Held,
}

/// Everything that a registration's conduct has earned it. Shared by all snapshots of one registration and
/// by no other.
///
/// The way of a healthy runner costs one load: [`is_ordinary`](Conduct::is_ordinary). The rest is looked
/// at, and the clock read, only when something is the matter.
// In this order, so that what the end of a request needs lies together.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Conduct {
    /// Time zero of everything in here.
    born: Instant,
    breaker: Breaker,
    hold: Hold,
    /// How often tries ended in each way, in the order of [`Outcome::ALL`].
    outcomes: [AtomicU64; Outcome::ALL.len()],
    /// Successes and faults together, and the faults among them.
    window: Window,
    /// Something may be the matter: look closer.
    remarkable: AtomicBool,
    /// Says the same on the board. Locked while either changes; never by the pick of a healthy runner.
    sign: Mutex<Sign>,
    warmup: Warmup,
    ejection: Ejection,
}

impl Conduct {
    /// `seed` decides on the jitter.
    pub(crate) fn new(born: Instant, seed: u64, sign: Sign) -> Self {
        Self {
            remarkable: AtomicBool::new(false),
            sign: Mutex::new(sign),
            breaker: Breaker::new(seed),
            hold: Hold::default(),
            outcomes: [const { AtomicU64::new(0) }; Outcome::ALL.len()],
            warmup: Warmup::default(),
            ejection: Ejection::default(),
            window: Window::new(),
            born,
        }
    }

    /// Whether nothing is the matter. `false` means no more than: look closer.
    #[inline]
    pub(crate) fn is_ordinary(&self) -> bool {
        !self.remarkable.load(Ordering::Acquire)
    }

    /// How little it should be used now; `None`: not at all, its breaker lets nobody in.
    ///
    /// `chance`, from 0 to 1 and the same for the whole of one choice, decides for a runner that warms up.
    /// `busy` is how many of how many slots are taken, if that is known.
    pub(crate) fn reluctance(
        &self,
        now: Instant,
        chance: f64,
        busy: Option<(u32, u32)>,
        policy: &HealthPolicy,
    ) -> Option<Reluctance> {
        if self.is_ordinary() {
            return Some(Reluctance::None);
        }
        let at = self.at(now);
        if !self.breaker.would_admit(at) {
            return None;
        }
        if self.hold.look(at).is_some() {
            return Some(Reluctance::Much);
        }
        if self.ejection.until(at).is_some() {
            return Some(Reluctance::Some);
        }
        match self.share(at, policy) {
            Some(share) if chance >= share || busy.is_some_and(|busy| !has_room(share, busy)) => {
                Some(Reluctance::Some)
            }
            Some(_) => Some(Reluctance::None),
            None => {
                self.forget(at, policy);
                Some(Reluctance::None)
            }
        }
    }

    /// Lets a request in, or not. What it is let in as must be given to [`record`](Conduct::record) or
    /// [`give_back`](Conduct::give_back).
    #[inline]
    pub(crate) fn admit(&self, now: impl FnOnce() -> Instant) -> Option<Admitted> {
        if self.is_ordinary() {
            return Some(Admitted::Freely);
        }
        self.breaker.admit(self.at(now()))
    }

    /// Takes the place of a probe back that ends without a verdict.
    pub(crate) fn give_back(&self, probe: &mut Probe) {
        self.breaker.nothing(probe);
    }

    /// The registration is that of a runner which was here before.
    pub(crate) fn came_back(&self, now: Instant) {
        self.warmup.start(self.at(now));
        self.remark();
    }

    /// The first byte of the answer to a probe is here.
    pub(crate) fn proved(&self, probe: &mut Probe, now: Instant, policy: &HealthPolicy) -> Option<Change> {
        let Some(breaker) = &policy.breaker else {
            self.breaker.nothing(probe);
            return None;
        };
        let at = self.at(now);
        let turn = self.breaker.proved(probe, at, breaker);
        self.turned(turn, at)
    }

    /// A try has ended. `retry_after` is the runner's own wish, if its answer had one.
    pub(crate) fn record(
        &self,
        outcome: Outcome,
        retry_after: Option<Duration>,
        mut probe: Option<&mut Probe>,
        now: Instant,
        policy: &HealthPolicy,
    ) -> Option<Change> {
        let at = self.at(now);
        if let Some(place) = Outcome::ALL.iter().position(|known| *known == outcome) {
            self.outcomes[place].fetch_add(1, Ordering::Relaxed);
        }
        let turn = match outcome {
            Outcome::Success => {
                self.window.add(at, ms(policy.window), 1, 0);
                let breaker = policy.breaker.as_ref();
                breaker.and_then(|policy| self.breaker.success(probe.as_deref_mut(), at, policy))
            }
            Outcome::RunnerFault(_) => {
                self.window.add(at, ms(policy.window), 1, 1);
                let counted = self.window.sum(at, ms(policy.window));
                let breaker = policy.breaker.as_ref();
                breaker.and_then(|policy| self.breaker.fault(probe.as_deref_mut(), counted, at, policy))
            }
            Outcome::ClientFault | Outcome::Overloaded | Outcome::Cancelled(_) | Outcome::NeverSent => None,
        };
        // Without a verdict it still has its place.
        if let Some(probe) = probe {
            self.breaker.nothing(probe);
        }
        let change = self.turned(turn, at);
        change.or_else(|| self.hold_back(outcome, retry_after, at, policy))
    }

    /// How often tries ended in each way.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (Outcome, u64)> + '_ {
        Outcome::ALL
            .into_iter()
            .zip(&self.outcomes)
            .map(|(known, count)| (known, count.load(Ordering::Relaxed)))
    }

    /// For people to read.
    pub(crate) fn standing(&self, now: Instant, policy: &HealthPolicy) -> Standing {
        if self.is_ordinary() {
            return Standing::default();
        }
        let at = self.at(now);
        let instant = |at: u64| self.born + Duration::from_millis(at);
        let view = self.breaker.look();
        let breaker = match view.phase_at(at) {
            Phase::Closed => BreakerState::Closed,
            Phase::Open => BreakerState::Open { until: instant(view.at), times: view.opened },
            Phase::HalfOpen => {
                let View { out, places, passed, .. } = view;
                BreakerState::HalfOpen { probing: out, places, passed }
            }
        };
        Standing {
            breaker,
            held: self.hold.look(at).map(|(until, why)| (instant(until), why)),
            ejected: self.ejection.until(at).map(instant),
            warming: self.share(at, policy),
        }
    }

    /// What outlier detection compares. `latency` is the mean time to the first byte of so many `answers`.
    pub(super) fn figures(
        &self,
        (latency, answers): (Option<Duration>, u32),
        now: Instant,
        window: Duration,
        policy: &OutlierPolicy,
    ) -> Figures {
        let at = self.at(now);
        let out = !self.is_ordinary()
            && (self.breaker.look().phase != Phase::Closed
                || self.hold.look(at).is_some()
                || self.ejection.until(at).is_some());
        let Counted { all: requests, some: faults } = self.window.sum(at, ms(window));
        let known = self.ejection.since(answers) >= policy.min_requests;
        let latency = latency.filter(|_| known).map(|latency| latency.as_secs_f64());
        Figures { out, requests, faults, latency }
    }

    /// Others are preferred for a while. Returns how often that has happened lately.
    pub(super) fn eject(&self, answers: u32, now: Instant, policy: &OutlierPolicy) -> u8 {
        let times = self.ejection.eject(self.at(now), answers, policy);
        self.remark();
        times
    }

    fn hold_back(
        &self,
        outcome: Outcome,
        retry_after: Option<Duration>,
        at: u64,
        policy: &HealthPolicy,
    ) -> Option<Change> {
        let hold = policy.hold.as_ref()?;
        match outcome {
            Outcome::NeverSent => {
                let held = self.hold.unreached(at, hold);
                if held {
                    self.remark();
                }
                return held.then_some(Change::Held);
            }
            // It may have been given up before it was connected.
            Outcome::Cancelled(_) => {}
            Outcome::Success | Outcome::ClientFault | Outcome::RunnerFault(_) | Outcome::Overloaded => {
                self.hold.reached();
            }
        }
        if outcome == Outcome::Overloaded {
            // Who turns requests away at once looks idle, and would be everybody's first choice.
            self.hold.asked(retry_after.unwrap_or(hold.shortest), at, hold);
            self.remark();
        }
        None
    }

    fn turned(&self, turn: Option<Turn>, at: u64) -> Option<Change> {
        let change = match turn? {
            Turn::Opened => Change::Opened,
            Turn::Closed => {
                // What led to the opening must not open it again.
                self.window.clear();
                self.warmup.start(at);
                Change::Closed
            }
        };
        self.remark();
        Some(change)
    }

    fn share(&self, at: u64, policy: &HealthPolicy) -> Option<f64> {
        self.warmup.share(at, policy.warmup.as_ref()?)
    }

    /// Called after whatever is remarkable has been written, so that it cannot be forgotten at once.
    fn remark(&self) {
        let sign = self.sign.lock().unwrap_or_else(PoisonError::into_inner);
        self.remarkable.store(true, Ordering::Release);
        sign.set(true);
    }

    /// Takes the remark back if everything is over. Something that is written meanwhile is either seen here
    /// or remarked on after the lock is free.
    fn forget(&self, at: u64, policy: &HealthPolicy) {
        let sign = match self.sign.try_lock() {
            Ok(sign) => sign,
            Err(TryLockError::Poisoned(sign)) => sign.into_inner(),
            // Whoever has it has news.
            Err(TryLockError::WouldBlock) => return,
        };
        let over = self.breaker.is_closed()
            && self.hold.look(at).is_none()
            && self.ejection.until(at).is_none()
            && self.share(at, policy).is_none();
        if over {
            self.remarkable.store(false, Ordering::Release);
            sign.set(false);
        }
    }

    fn at(&self, now: Instant) -> u64 {
        ms(now.saturating_duration_since(self.born))
    }
}

/// Whether a runner with that share of the requests may have one more of its slots taken; always the first.
fn has_room(share: f64, (taken, slots): (u32, u32)) -> bool {
    f64::from(taken) < (share * f64::from(slots)).max(1.0)
}
