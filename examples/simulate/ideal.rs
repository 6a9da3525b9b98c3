//! What no strategy can do better than, where that is simple to say.

use super::cache::BlockCache;
use super::figures::Quantiles;
use super::scenario::Scenario;

/// Bounds of a scenario.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounds {
    /// Share of blocks, and of prompt tokens, that one LRU cache of all runners' size serves over the order of arrival.
    pub(crate) hit_rate_blocks: f64,
    pub(crate) hit_rate_tokens: f64,
    /// The same without a limit of size.
    pub(crate) unlimited_hit_rate_blocks: f64,
    /// The time to first token if each request had a healthy runner to itself that holds what the ideal cache holds.
    pub(crate) first_token: Quantiles,
}

impl Bounds {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let machine = &scenario.machine;
        let blocks = machine.kv_blocks as usize * scenario.runners;
        let limited = replay(scenario, blocks);
        let unlimited = replay(scenario, usize::MAX / 2);
        let requests = &scenario.trace.requests;
        let all_blocks: usize = requests.iter().map(|request| request.blocks.len()).sum();
        let (all_tokens, _) = scenario.trace.tokens();
        let tokens = |hits: &[(usize, u32)]| hits.iter().map(|(_, tokens)| u64::from(*tokens)).sum::<u64>();
        let share = |hits: &[(usize, u32)]| {
            hits.iter().map(|(blocks, _)| blocks).sum::<usize>() as f64 / all_blocks.max(1) as f64
        };
        let mut alone: Vec<f64> = requests
            .iter()
            .zip(&limited)
            .map(|(request, (_, cached))| f64::from(request.prompt_tokens - cached) / machine.prefill_rate)
            .collect();
        alone.sort_by(f64::total_cmp);
        Self {
            hit_rate_blocks: share(&limited),
            hit_rate_tokens: tokens(&limited) as f64 / all_tokens.max(1) as f64,
            unlimited_hit_rate_blocks: share(&unlimited),
            first_token: Quantiles::of(&alone),
        }
    }
}

/// Blocks and tokens that one cache serves of each request, one after the other.
fn replay(scenario: &Scenario, blocks: usize) -> Vec<(usize, u32)> {
    let mut cache = BlockCache::new(blocks);
    let one = |request: &super::trace::TraceRequest| {
        let Some(hits) = cache.admit(&request.blocks, 0) else { return (0, 0) };
        request.blocks[hits..].iter().for_each(|hash| cache.publish(*hash));
        cache.release(&request.blocks, 0);
        let tokens = u32::try_from(hits).unwrap_or(u32::MAX).saturating_mul(scenario.machine.block_tokens);
        (hits, tokens.min(request.prompt_tokens - 1))
    };
    scenario.trace.requests.iter().map(one).collect()
}
