//! What the answers to probes say about a runner's health.

use super::{Health, ResourceReport, RunnerStatus};

/// For sources that probe their runners: draws the conclusion from one probe after the other. A runner that does not
/// answer keeps its models and, after the third time, is unhealthy; one good answer and it is well again.
///
/// ```
/// use gateway_core::{Health, ModelId, ProbeVerdict, RunnerStatus};
/// let mut verdict = ProbeVerdict::new(RunnerStatus::serving([ModelId::new("llama")?]));
/// assert!(verdict.missed().is_none() && verdict.missed().is_none());
/// assert_eq!(verdict.missed().map(|status| status.health), Some(Health::Unhealthy));
/// # Ok::<(), gateway_core::InvalidName>(())
/// ```
#[derive(Debug, Default)]
pub struct ProbeVerdict {
    failures: u32,
    /// The last that the engine said while it was well.
    known: RunnerStatus,
}

impl ProbeVerdict {
    /// One failure is a hiccup and two may be a restart; a third is an outage.
    pub const FAILURES: u32 = 3;

    /// Begins with what is known before the first probe.
    pub fn new(known: RunnerStatus) -> Self {
        Self { failures: 0, known }
    }

    /// The runner answered. Gives the status to be told of it.
    pub fn heard(&mut self, status: RunnerStatus) -> RunnerStatus {
        self.failures = 0;
        if status.health.is_operational() {
            self.known = status;
            return self.known.clone();
        }
        // It says itself that it cannot serve: that holds at once. It still has its models.
        self.but(status.health)
    }

    /// It did not, or not sensibly. `Some` if its status changes by that.
    pub fn missed(&mut self) -> Option<RunnerStatus> {
        self.failures = self.failures.saturating_add(1);
        (self.failures == Self::FAILURES).then(|| self.but(Health::Unhealthy))
    }

    /// Whether the last probe came to nothing.
    pub fn is_missing(&self) -> bool {
        self.failures > 0
    }

    /// Whether its last status was that of an outage.
    pub fn is_out(&self) -> bool {
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
    use crate::names::ModelId;

    use super::*;

    fn well() -> RunnerStatus {
        RunnerStatus::serving([ModelId::new("a").unwrap()])
    }

    #[test]
    fn three_failures_in_a_row_and_one_success() {
        let mut verdict = ProbeVerdict::new(well());
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
        assert!(verdict.is_out() && verdict.is_missing());
        assert_eq!(verdict.heard(well()), well());
        assert!(!verdict.is_out() && !verdict.is_missing());
    }

    #[test]
    fn the_engines_own_word_counts_at_once_and_keeps_the_models() {
        let mut verdict = ProbeVerdict::new(well());
        let starting = RunnerStatus { health: Health::Starting, ..RunnerStatus::default() };
        let said = verdict.heard(starting);
        assert_eq!((said.health, said.models), (Health::Starting, well().models));
    }
}
