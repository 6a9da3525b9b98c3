//! What a run comes to in figures.

use std::collections::BTreeMap;

use serde::Serialize;

use super::engine::Nanos;
use super::ideal::Bounds;
use super::run::Run;
use super::scenario::Scenario;

/// The figures of one strategy in one scenario. Times in seconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    pub(crate) strategy: String,
    pub(crate) runners: usize,
    /// Share of capacity that the load would be without any cache hit.
    pub(crate) load: f64,
    pub(crate) requests: usize,
    pub(crate) finished: usize,
    pub(crate) failed: BTreeMap<&'static str, usize>,
    /// Requests that were sent to more than one runner.
    pub(crate) retried: usize,
    /// From arrival to the first token.
    pub(crate) first_token: Quantiles,
    /// Between tokens after the first, per request.
    pub(crate) per_token: Quantiles,
    /// From arrival to the last token.
    pub(crate) whole: Quantiles,
    /// Share of all prompt blocks, and of prompt tokens, that were in the cache.
    pub(crate) hit_rate_blocks: f64,
    pub(crate) hit_rate_tokens: f64,
    /// Hit rate (blocks) of one LRU cache of the same total size over the order of arrival, and the share reached.
    pub(crate) ideal_hit_rate_blocks: f64,
    pub(crate) share_of_ideal: f64,
    /// Time to first token if nobody ever waited and every hit of the ideal cache were had.
    pub(crate) first_token_bound: Quantiles,
    /// Share of each runner's capacity that was used up to the last arrival, in the measure of `load`: what was found in
    /// a cache is not in it, and a runner with one answer to generate is not busy for that.
    pub(crate) busy: Vec<f64>,
    /// Jain's index over the runners' busy shares: 1 when all are equal, 1/n when one has everything.
    pub(crate) fairness_runners: f64,
    /// Jain's index over the tenants' mean time to first token, if there are tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fairness_tenants: Option<f64>,
    /// Virtual seconds until the last answer's end.
    pub(crate) duration: f64,
    /// Tokens of finished answers per virtual second.
    pub(crate) tokens_per_s: f64,
    /// Wall clock: not the same from run to run.
    pub(crate) pick: PickCost,
    /// Every time to first token, sorted, for the plot.
    #[serde(skip)]
    pub(crate) first_tokens: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// Nanoseconds of one choice, the reading of the clock (some 40 ns) included.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub(crate) struct PickCost {
    pub(crate) picks: usize,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
}

impl Quantiles {
    /// Of sorted values; by the nearest rank.
    pub(crate) fn of(sorted: &[f64]) -> Self {
        let Some(max) = sorted.last().copied() else { return Self::default() };
        let rank = |q: f64| {
            let at = (sorted.len() as f64 * q).ceil() as usize;
            sorted[at.clamp(1, sorted.len()) - 1]
        };
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        Self { mean, p50: rank(0.5), p90: rank(0.9), p99: rank(0.99), max }
    }
}

/// Jain, Chiu and Hawe 1984: (Σx)² / (n Σx²).
pub(crate) fn jain(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let sum = values.clone().sum::<f64>();
    let squares = values.clone().map(|value| value * value).sum::<f64>();
    if squares > 0.0 { sum * sum / (values.count() as f64 * squares) } else { 1.0 }
}

fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

impl Figures {
    pub(crate) fn of(scenario: &Scenario, strategy: &str, run: &Run, bounds: &Bounds) -> Self {
        let both = || run.records.iter().zip(&scenario.trace.requests);
        let first_tokens = sorted(
            run.records.iter().filter_map(|record| Some(seconds(record.first_token? - record.arrival))),
        );
        let per_token = sorted(both().filter_map(|(record, request)| {
            let streamed = record.end?.checked_sub(record.first_token?)?;
            (request.answer_tokens > 1).then(|| seconds(streamed) / f64::from(request.answer_tokens - 1))
        }));
        let whole =
            sorted(run.records.iter().filter_map(|record| Some(seconds(record.end? - record.arrival))));
        // A prompt counts once, when its answer has begun.
        let begun = || both().filter_map(|(record, request)| Some((record.cached?, request)));
        let share = |hit: u64, all: u64| hit as f64 / all.max(1) as f64;
        let hit_rate_blocks = share(
            begun().map(|(cached, _)| u64::from(cached.blocks)).sum(),
            begun().map(|(_, request)| request.blocks.len() as u64).sum(),
        );
        let hit_rate_tokens = share(
            begun().map(|(cached, _)| u64::from(cached.tokens)).sum(),
            begun().map(|(_, request)| u64::from(request.prompt_tokens)).sum(),
        );
        let mut failed = BTreeMap::new();
        for why in run.records.iter().filter_map(|record| record.failed) {
            *failed.entry(why).or_default() += 1;
        }
        let finished = |record: &super::log::Record| record.end.is_some() && record.failed.is_none();
        let answer_tokens: u64 = both()
            .filter(|(record, _)| finished(record))
            .map(|(_, request)| u64::from(request.answer_tokens))
            .sum();
        let busy: Vec<f64> = (0..run.done.len()).map(|runner| busy(scenario, run, runner)).collect();
        Self {
            strategy: strategy.to_owned(),
            runners: scenario.runners,
            load: scenario.load(),
            requests: run.records.len(),
            finished: run.records.iter().filter(|record| finished(record)).count(),
            failed,
            retried: run.records.iter().filter(|record| record.tries > 1).count(),
            first_token: Quantiles::of(&first_tokens),
            per_token: Quantiles::of(&per_token),
            whole: Quantiles::of(&whole),
            hit_rate_blocks,
            hit_rate_tokens,
            ideal_hit_rate_blocks: bounds.hit_rate_blocks,
            share_of_ideal: hit_rate_blocks / bounds.hit_rate_blocks.max(f64::MIN_POSITIVE),
            first_token_bound: bounds.first_token,
            fairness_runners: jain(busy.iter().copied()),
            fairness_tenants: fairness_of_tenants(scenario, run),
            busy,
            duration: seconds(run.end),
            tokens_per_s: answer_tokens as f64 / seconds(run.end).max(f64::MIN_POSITIVE),
            pick: PickCost {
                picks: run.picks.len(),
                p50_ns: run.picks.quantile(0.5),
                p99_ns: run.picks.quantile(0.99),
            },
            first_tokens,
        }
    }

    /// Least, mean and most busy share of a runner.
    pub(crate) fn busy_range(&self) -> (f64, f64, f64) {
        let least = self.busy.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.busy.iter().copied().fold(0.0, f64::max);
        (least, self.busy.iter().sum::<f64>() / self.busy.len().max(1) as f64, most)
    }
}

fn busy(scenario: &Scenario, run: &Run, runner: usize) -> f64 {
    let machine = scenario.machine_of(runner);
    let done = run.done[runner];
    let (prompts, answers) = scenario.trace.tokens();
    let share = answers as f64 / (prompts + answers).max(1) as f64;
    let worked = done.prompt_tokens as f64 / machine.prefill_rate * machine.slowdown
        + done.answer_tokens as f64 * machine.answer_token(share);
    worked / seconds(run.last_arrival.max(1))
}

fn fairness_of_tenants(scenario: &Scenario, run: &Run) -> Option<f64> {
    let mut waits: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for (record, request) in run.records.iter().zip(&scenario.trace.requests) {
        if let (Some(tenant), Some(first)) = (&request.tenant, record.first_token) {
            let (sum, count) = waits.entry(tenant).or_default();
            *sum += seconds(first - record.arrival);
            *count += 1.0;
        }
    }
    (!waits.is_empty()).then(|| jain(waits.values().map(|(sum, count)| sum / count)))
}
