//! What the answers to probes say about a runner's health.

use gateway_core::{Health, ResourceReport, RunnerStatus};

/// Draws the conclusion from one probe after the other.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    failures: u32,
    /// The last that the engine said while it was well.
    known: RunnerStatus,
}

impl Verdict {
    /// One failure is a hiccup and two may be a restart; a third is an outage.
    pub(super) const FAILURES: u32 = 3;

    /// Begins with what is known before the first probe.
    pub(super) fn new(known: RunnerStatus) -> Self {
        Self { failures: 0, known }
    }

    /// The engine answered.
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

    /// Whether its last status was that of an outage.
    pub(super) fn is_out(&self) -> bool {
        self.failures >= Self::FAILURES
    }

    /// What is known of it. How busy it is and what it has free is not.
    fn but(&self, health: Health) -> RunnerStatus {
        let resources = ResourceReport { total: self.known.resources.total, ..ResourceReport::default() };
        RunnerStatus { health, load: None, resources, ..self.known.clone() }
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
            assert_eq!(verdict.missed(), None);
            assert_eq!(verdict.missed(), None);
            assert_eq!(verdict.heard(well()).health, Health::Healthy);
        }
        assert_eq!(verdict.missed(), None);
        assert_eq!(verdict.missed(), None);
        let down = verdict.missed().unwrap();
        assert_eq!((down.health, down.models.len()), (Health::Unhealthy, 1));
        assert_eq!(verdict.missed(), None, "said once");
        assert!(verdict.is_out());
        assert_eq!(verdict.heard(well()), well());
    }

    #[test]
    fn the_engines_own_word_counts_at_once_and_keeps_the_models() {
        let mut verdict = Verdict::new(well());
        let starting = RunnerStatus { health: Health::Starting, ..RunnerStatus::default() };
        let said = verdict.heard(starting);
        assert_eq!((said.health, said.models), (Health::Starting, well().models));
    }
}
