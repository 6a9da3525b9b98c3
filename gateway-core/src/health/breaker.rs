use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::gate::{Entry, Gate, Probe, Turn, Verdict, View};
use super::ms;
use crate::window::Counted;

/// When a runner's circuit breaker opens, and how it closes again.
///
/// It opens after so many faults in a row, or when the share of faults is too high, and nothing goes to
/// the runner for a while. Then it is half-open: a counted number of requests are let through as probes.
/// One fault opens it again, for twice as long; enough successes close it. A probe succeeds with the first
/// byte of its answer's body, because generating the rest may take minutes; if the rest breaks off, that
/// is a fault like any other.
///
/// Only [`RunnerFault`](crate::Outcome::RunnerFault) and [`Success`](crate::Outcome::Success) move it.
/// Everything else says nothing of the runner's health; a probe that ends so gives its place back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerPolicy {
    /// So many faults in a row open it; 0: they never do.
    pub consecutive_faults: u32,
    /// This share of faults, 0 to 1, among the last requests opens it; above 1: it never does.
    pub fault_rate: f64,
    /// The share means nothing among fewer requests than this.
    pub min_requests: u32,
    /// How long it is open the first time.
    pub open_for: Duration,
    /// The longest that it is open. The time doubles with every opening, until it was closed for this long.
    pub longest_open: Duration,
    /// Requests that may probe at once, 1 to 63.
    pub probes: u8,
    /// Probes that must succeed before it closes, 1 to 63.
    pub close_after: u8,
}

impl BreakerPolicy {
    /// All of the defaults.
    pub const DEFAULT: Self = Self {
        consecutive_faults: Self::CONSECUTIVE_FAULTS,
        fault_rate: Self::FAULT_RATE,
        min_requests: Self::MIN_REQUESTS,
        open_for: Self::OPEN_FOR,
        longest_open: Self::LONGEST_OPEN,
        probes: Self::PROBES,
        close_after: Self::CLOSE_AFTER,
    };
    /// Five in a row, as in Envoy's outlier detection (`consecutive_5xx`) and Finagle's failure accrual.
    pub const CONSECUTIVE_FAULTS: u32 = 5;
    /// Half: a runner that fails every other request costs more retries than it saves work. It is the
    /// default of resilience4j (`failureRateThreshold`), too.
    pub const FAULT_RATE: f64 = 0.5;
    /// Twenty, as in Hystrix (`requestVolumeThreshold`): with fewer, chance looks like a rate.
    pub const MIN_REQUESTS: u32 = 20;
    /// Five seconds, as in Hystrix (`sleepWindow`) and in Finagle's first `markDeadFor`: an engine that
    /// stumbled is back by then, one that restarts is not, and costs one more probe.
    pub const OPEN_FOR: Duration = Duration::from_secs(5);
    /// One minute, as in linkerd's circuit breaking (`failure-accrual-consecutive-max-penalty`).
    pub const LONGEST_OPEN: Duration = Duration::from_secs(60);
    /// One probe: what crashes a runner again should crash it for one client only.
    pub const PROBES: u8 = 1;
    /// Two: the first may have been lucky.
    pub const CLOSE_AFTER: u8 = 2;
    /// The open time is up to a tenth longer or shorter, so that gateways with the same view of a runner do
    /// not all probe it at once.
    pub const JITTER: f64 = 0.1;

    /// How long it stays open the `opened`th time in a row, in ms. `seed` decides on the jitter.
    fn open_ms(&self, opened: u8, seed: u64) -> u64 {
        let doubled = 2u32.saturating_pow(u32::from(opened.saturating_sub(1)));
        let time = self.open_for.saturating_mul(doubled).min(self.longest_open);
        let chance = fastrand::Rng::with_seed(seed ^ u64::from(opened)).f64();
        let jittered = time.mul_f64(1.0 + Self::JITTER * (2.0 * chance - 1.0));
        ms(jittered.min(self.longest_open))
    }
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The breaker of one registration. Times are ms on the registration's clock.
#[derive(Debug)]
pub(super) struct Breaker {
    gate: Gate,
    consecutive: AtomicU32,
    seed: u64,
}

/// What a breaker lets a request do.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// Go on.
    Freely,
    /// Go on, as a probe.
    Probing(Probe),
}

impl Breaker {
    pub(super) fn new(seed: u64) -> Self {
        Self { gate: Gate::new(), consecutive: AtomicU32::new(0), seed }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.gate.is_closed()
    }

    pub(super) fn look(&self) -> View {
        self.gate.look()
    }

    pub(super) fn would_admit(&self, now: u64) -> bool {
        self.gate.would_admit(now)
    }

    pub(super) fn admit(&self, now: u64) -> Option<Admitted> {
        self.gate.enter(now).map(|entry| match entry {
            Entry::Free => Admitted::Freely,
            Entry::Probe(probe) => Admitted::Probing(probe),
        })
    }

    /// The first byte is here: a probe has passed.
    pub(super) fn proved(&self, probe: &mut Probe, now: u64, policy: &BreakerPolicy) -> Option<Turn> {
        let verdict = Verdict::<fn(u8) -> u64>::Passed { enough: policy.close_after, now };
        let turn = self.gate.settle(probe, verdict);
        if turn == Some(Turn::Closed) {
            self.consecutive.store(0, Ordering::Relaxed);
        }
        turn
    }

    pub(super) fn success(
        &self,
        probe: Option<&mut Probe>,
        now: u64,
        policy: &BreakerPolicy,
    ) -> Option<Turn> {
        // Read before it is written: on the way of a healthy runner nobody else's cache line is touched.
        if self.consecutive.load(Ordering::Relaxed) != 0 {
            self.consecutive.store(0, Ordering::Relaxed);
        }
        self.proved(probe?, now, policy)
    }

    /// A fault. `counted` is what came of the last requests, this one among them.
    pub(super) fn fault(
        &self,
        probe: Option<&mut Probe>,
        counted: Counted,
        now: u64,
        policy: &BreakerPolicy,
    ) -> Option<Turn> {
        let until = |opened| now.saturating_add(policy.open_ms(opened, self.seed));
        if let Some(probe) = probe {
            let turn = self.gate.settle(probe, Verdict::Failed { places: policy.probes, until });
            if turn.is_some() {
                return turn;
            }
        }
        let row = self.consecutive.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let in_a_row = policy.consecutive_faults > 0 && row >= policy.consecutive_faults;
        let enough = counted.all >= u64::from(policy.min_requests.max(1));
        let too_many = enough && counted.some as f64 >= policy.fault_rate * counted.all as f64;
        if !in_a_row && !too_many {
            return None;
        }
        self.gate.trip(now, ms(policy.longest_open), policy.probes, until)
    }

    /// An end that says nothing of the runner's health.
    pub(super) fn nothing(&self, probe: &mut Probe) {
        self.gate.give_back(probe);
    }
}
