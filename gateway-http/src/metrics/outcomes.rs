use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use gateway_core::{Attempt, Fleet, Outcome};
use prometheus_client::encoding::DescriptorEncoder;

use super::encode::counters;

/// How tries ended: in all, which is never forgotten, and by runner, which each registration counts itself and takes along
/// when it leaves.
#[derive(Default)]
pub(super) struct OutcomeMetrics {
    all: [AtomicU64; Outcome::ALL.len()],
}

impl OutcomeMetrics {
    pub(super) fn count(&self, attempt: &Attempt<'_>) {
        if let Some(at) = Outcome::ALL.iter().position(|outcome| *outcome == attempt.outcome) {
            self.all[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>, fleet: Option<&Fleet>) -> fmt::Result {
        let all = Outcome::ALL.iter().zip(&self.all);
        let samples =
            all.map(|(outcome, count)| ([("outcome", outcome.as_str())], count.load(Ordering::Relaxed)));
        counters(encoder, "gateway_outcomes", "Tries on runners, by how they ended", samples)?;

        let Some(fleet) = fleet else { return Ok(()) };
        let samples = fleet.runners().iter().flat_map(|runner| {
            let used = runner.outcomes().filter(|(_, count)| *count > 0);
            used.map(|(outcome, count)| {
                ([("runner", runner.id().as_str()), ("outcome", outcome.as_str())], count)
            })
        });
        let help = "Tries on the runners that are there, by how they ended";
        counters(encoder, "gateway_runner_outcomes", help, samples)
    }
}
