//! What of a runner's resources is promised to requests that are under way.

use std::sync::atomic::{AtomicU64, Ordering};

use super::resources::{ResourceReport, Resources};

/// Resources in thousandths, so that they can be counted without a lock.
type Thousandths = [u64; 3];

/// A report says what is free of a machine, requests of ours included as they were at that moment. What they
/// hold now is known here, and counts at once.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// What would be free if none of ours were there; `UNKNOWN` until it is reported.
    free: [AtomicU64; 3],
    held: [AtomicU64; 3],
}

const UNKNOWN: u64 = u64::MAX;

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            free: std::array::from_fn(|_| AtomicU64::new(UNKNOWN)),
            held: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    pub(crate) fn report(&self, report: &ResourceReport) {
        let total = report.total.as_ref().map(thousandths);
        let available = report.available.as_ref().map(thousandths);
        for at in 0..3 {
            let held = self.held[at].load(Ordering::Relaxed);
            let free = available.map_or(UNKNOWN, |available| {
                // No machine has more than it has, however the report and our count overlap.
                let free = available[at].saturating_add(held);
                total.map_or(free, |total| free.min(total[at].max(available[at])))
            });
            self.free[at].store(free, Ordering::Relaxed);
        }
    }

    /// What is free now, or `None` if the runner does not say.
    pub(crate) fn available(&self) -> Option<Resources> {
        let mut left = [0; 3];
        for (at, left) in left.iter_mut().enumerate() {
            let free = self.free[at].load(Ordering::Relaxed);
            if free == UNKNOWN {
                return None;
            }
            *left = free.saturating_sub(self.held[at].load(Ordering::Relaxed));
        }
        let whole = |thousandths: u64| thousandths as f64 / 1000.0;
        Some(Resources { cpus: whole(left[0]), gpus: whole(left[1]), memory_gb: whole(left[2]) })
    }

    /// Takes all of `need` or nothing.
    pub(crate) fn take(&self, need: &Resources) -> bool {
        let need = thousandths(need);
        for at in 0..3 {
            let free = self.free[at].load(Ordering::Relaxed);
            let next = |held: u64| held.checked_add(need[at]).filter(|held| free != UNKNOWN && *held <= free);
            if self.held[at].fetch_update(Ordering::AcqRel, Ordering::Relaxed, next).is_err() {
                (0..at).for_each(|at| self.release(at, need));
                return false;
            }
        }
        true
    }

    pub(crate) fn give_back(&self, held: &Resources) {
        let held = thousandths(held);
        (0..3).for_each(|at| self.release(at, held));
    }

    fn release(&self, at: usize, held: Thousandths) {
        self.held[at].fetch_sub(held[at], Ordering::AcqRel);
    }
}

fn thousandths(resources: &Resources) -> Thousandths {
    // A cast from a float saturates and takes what is no number for 0.
    let whole = |amount: f64| ((amount * 1000.0).round() as u64).min(UNKNOWN / 4);
    [whole(resources.cpus), whole(resources.gpus), whole(resources.memory_gb)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus(gpus: f64) -> Resources {
        Resources { gpus, ..Resources::default() }
    }

    #[test]
    fn what_is_taken_counts_at_once_and_a_report_does_not_count_it_twice() {
        let ledger = Ledger::new();
        assert!(!ledger.take(&gpus(1.0)), "unknown is not free");
        ledger.report(&ResourceReport { total: Some(gpus(2.0)), available: Some(gpus(2.0)) });
        assert!(ledger.take(&gpus(1.5)) && !ledger.take(&gpus(1.0)));
        assert_eq!(ledger.available(), Some(gpus(0.5)));
        ledger.report(&ResourceReport { total: Some(gpus(2.0)), available: Some(gpus(0.5)) });
        assert_eq!(ledger.available(), Some(gpus(0.5)));
        ledger.give_back(&gpus(1.5));
        assert_eq!(ledger.available(), Some(gpus(2.0)));
    }

    #[test]
    fn all_or_nothing() {
        let ledger = Ledger::new();
        let all = Resources { cpus: 4.0, gpus: 1.0, memory_gb: 8.0 };
        ledger.report(&ResourceReport { total: None, available: Some(all) });
        assert!(!ledger.take(&Resources { cpus: 1.0, gpus: 1.0, memory_gb: 9.0 }));
        assert_eq!(ledger.available(), Some(all));
        assert!(ledger.take(&all));
    }
}
