use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use gateway_core::{Attempt, Fleet, Outcome, RunnerId};
use prometheus_client::encoding::DescriptorEncoder;

use super::encode::counters;

/// The most runners whose outcomes are counted one by one between two scrapes; those that have left are
/// forgotten at each scrape.
const MAX_RUNNERS: usize = 16_384;

type Counts = [AtomicU64; Outcome::ALL.len()];

/// How tries ended: in all, which is never forgotten, and by runner, as long as the runner is there.
#[derive(Default)]
pub(super) struct OutcomeMetrics {
    all: Counts,
    by_runner: ArcSwap<HashMap<RunnerId, Arc<Counts>>>,
}

impl OutcomeMetrics {
    pub(super) fn count(&self, attempt: &Attempt<'_>) {
        let Some(at) = Outcome::ALL.iter().position(|outcome| *outcome == attempt.outcome) else { return };
        self.all[at].fetch_add(1, Ordering::Relaxed);
        let id = attempt.runner.id();
        let by_runner = self.by_runner.load();
        if let Some(counts) = by_runner.get(id) {
            counts[at].fetch_add(1, Ordering::Relaxed);
            return;
        }
        if attempt.runner.has_left() || by_runner.len() >= MAX_RUNNERS {
            return;
        }
        let new = Arc::new(Counts::default());
        self.by_runner.rcu(|old| {
            let mut next = HashMap::clone(old);
            if next.len() < MAX_RUNNERS {
                next.entry(id.clone()).or_insert_with(|| new.clone());
            }
            next
        });
        if let Some(counts) = self.by_runner.load().get(id) {
            counts[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>, fleet: Option<&Fleet>) -> fmt::Result {
        let all = Outcome::ALL.iter().zip(&self.all);
        let samples =
            all.map(|(outcome, count)| ([("outcome", outcome.as_str())], count.load(Ordering::Relaxed)));
        counters(encoder, "gateway_outcomes", "Tries on runners, by how they ended", samples)?;

        let Some(fleet) = fleet else { return Ok(()) };
        let here = |id: &RunnerId| fleet.runner(id.as_str()).is_some();
        if self.by_runner.load().keys().any(|id| !here(id)) {
            self.by_runner.rcu(|old| {
                let stay = old.iter().filter(|(id, _)| here(id));
                stay.map(|(id, counts)| (id.clone(), counts.clone())).collect::<HashMap<_, _>>()
            });
        }
        let by_runner = self.by_runner.load_full();
        let samples = by_runner.iter().flat_map(|(id, counts)| {
            let used = Outcome::ALL.iter().zip(counts.iter());
            used.filter_map(move |(outcome, count)| {
                let count = count.load(Ordering::Relaxed);
                (count > 0).then(|| ([("runner", id.as_str()), ("outcome", outcome.as_str())], count))
            })
        });
        let help = "Tries on the runners that are there, by how they ended";
        counters(encoder, "gateway_runner_outcomes", help, samples)
    }
}
