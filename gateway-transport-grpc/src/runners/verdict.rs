//! What the answers to probes say about a worker's health.

use gateway_core::{Health, RunnerStatus};

/// Draws the conclusion from one probe after the other.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    failures: u32,
    /// The last that the worker said while it was well.
    known: RunnerStatus,
}

impl Verdict {
    /// One failure is a hiccup and two may be a restart; a third is an outage.
    pub(super) const FAILURES: u32 = 3;

    /// Begins with what is known before the first probe.
    pub(super) fn new(known: RunnerStatus) -> Self {
        Self { failures: 0, known }
    }

    /// The worker answered.
    pub(super) fn heard(&mut self, status: RunnerStatus) -> RunnerStatus {
        self.failures = 0;
        if status.health.is_operational() {
            self.known = status;
            return self.known.clone();
        }
        // It says itself that it cannot serve: that holds at once. It still has its models.
        self.but(status.health)
    }

    /// It did not, or not sensibly. `Some` if its status changes by that.
    pub(super) fn missed(&mut self) -> Option<RunnerStatus> {
        self.failures = self.failures.saturating_add(1);
        (self.failures == Self::FAILURES).then(|| self.but(Health::Unhealthy))
    }

    /// Whether the last probe came to nothing.
    pub(super) fn is_missing(&self) -> bool {
        self.failures > 0
    }

    /// What is known of it. How busy it is is not.
    fn but(&self, health: Health) -> RunnerStatus {
        RunnerStatus { health, load: None, ..self.known.clone() }
    }
}

#[cfg(test)]
mod tests {
    use gateway_core::ModelId;

    use super::*;

    fn well() -> RunnerStatus {
        RunnerStatus::serving([ModelId::new("a").unwrap()])
    }

    #[test]
    fn three_failures_in_a_row_and_one_success() {
        let mut verdict = Verdict::new(well());
        for _ in 0..2 {
            assert_eq!((verdict.missed(), verdict.missed()), (None, None));
            assert_eq!(verdict.heard(well()).health, Health::Healthy);
        }
        assert_eq!((verdict.missed(), verdict.missed()), (None, None));
        let down = verdict.missed().unwrap();
        assert_eq!((down.health, down.models.len()), (Health::Unhealthy, 1));
        assert_eq!(verdict.missed(), None, "said once");
        assert!(verdict.is_missing());
        assert_eq!(verdict.heard(well()), well());
        assert!(!verdict.is_missing());
    }

    #[test]
    fn the_workers_own_word_counts_at_once_and_keeps_the_models() {
        let mut verdict = Verdict::new(well());
        let said = verdict.heard(RunnerStatus { health: Health::Unhealthy, ..RunnerStatus::default() });
        assert_eq!((said.health, said.models), (Health::Unhealthy, well().models));
    }
}
