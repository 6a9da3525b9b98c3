use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use foldhash::fast::FixedState;
use tokio::time::Instant;

use super::outlier::{Figures, Scratch};
use super::{HealthPolicy, ms};
use crate::fleet::Fleet;
use crate::names::ModelId;

/// Compares the peers of a model, at most once a second, when one of their tries has ended. No task of its
/// own: while nothing is tried there is nothing to compare.
#[derive(Debug)]
pub(crate) struct Outliers {
    /// When the models of each group were last compared, in ms since `born`, plus one.
    compared: [AtomicU64; GROUPS],
    work: Mutex<Work>,
    born: Instant,
}

#[derive(Debug, Default)]
struct Work {
    peers: Vec<Figures>,
    scratch: Scratch,
}

/// Models are told apart by a hash only, so that what is remembered of them is bounded: two that fall into
/// one group take turns.
const GROUPS: usize = 64;
/// A comparison looks at every peer: often enough for people, seldom enough to cost nothing.
const EVERY_MS: u64 = 1_000;

impl Outliers {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            compared: std::array::from_fn(|_| AtomicU64::new(0)),
            work: Mutex::new(Work::default()),
            born: now,
        }
    }

    /// A try for the model has ended: compares those who have it, if it is time to.
    pub(crate) fn tried(
        &self,
        model: &ModelId,
        fleet: impl FnOnce() -> Arc<Fleet>,
        now: Instant,
        policy: &HealthPolicy,
    ) {
        if policy.outliers.is_some() && self.is_time(model, now) {
            self.compare(model, &fleet(), now, policy);
        }
    }

    fn is_time(&self, model: &ModelId, now: Instant) -> bool {
        let group = &self.compared[FixedState::default().hash_one(model) as usize % GROUPS];
        let at = ms(now.saturating_duration_since(self.born)).saturating_add(1);
        let before = group.load(Ordering::Relaxed);
        (before == 0 || at >= before.saturating_add(EVERY_MS))
            && group.compare_exchange(before, at, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn compare(&self, model: &ModelId, fleet: &Fleet, now: Instant, health: &HealthPolicy) {
        let Some(policy) = &health.outliers else { return };
        let Some(entry) = fleet.model(model.as_str()) else { return };
        // One at a time: two that eject at once could together eject too many.
        let mut work = match self.work.try_lock() {
            Ok(work) => work,
            Err(TryLockError::Poisoned(work)) => work.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let Work { peers, scratch } = &mut *work;
        let loaded = entry.loaded();
        peers.clear();
        peers.extend(loaded.iter().map(|runner| {
            let live = runner.live();
            let speed = live.meter().mean_first_byte();
            let figures = live.conduct().figures(speed, now, health.window, policy);
            Figures { out: figures.out || !runner.is_available(), ..figures }
        }));
        for at in scratch.judge(peers, policy) {
            let (Some(runner), Some(figures)) = (loaded.get(at), peers.get(at)) else { continue };
            let (_, answers) = runner.live().meter().mean_first_byte();
            let times = runner.live().conduct().eject(answers, now, policy);
            tracing::warn!(
                runner = %runner.key(), %model, times, requests = figures.requests, faults = figures.faults,
                first_byte_s = figures.latency, "does much worse than its peers: others are preferred for a while"
            );
        }
    }
}
