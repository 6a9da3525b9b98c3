use std::fmt;

use crate::balance::{Balancer, PrefixCache};
use crate::dispatch::Attempt;
use crate::pipeline::{Scene, Scorer};
use crate::router::Requirements;
use crate::runner::{Reservation, Runner};

/// The share of the prompt that the runner probably has in its cache; more is better. Unknown if nothing is known of
/// the prompt. Name: `prefix`.
///
/// It knows no more of a runner's load than a cache does, so it belongs beside [`LoadScorer`](super::LoadScorer) or
/// [`TokensScorer`](super::TokensScorer). What is in caches is reckoned as by [`PrefixCache`], which weighs cache
/// against load in seconds and is the better choice where nothing else counts. Each one has an index of its own: 8 MiB.
#[derive(Default)]
pub struct PrefixScorer {
    cache: PrefixCache,
}

impl PrefixScorer {
    /// For runners whose caches hold so many tokens; [`PrefixCache::CACHE_TOKENS`] by default.
    pub fn new(cache_tokens: u32) -> Self {
        Self { cache: PrefixCache::new(cache_tokens) }
    }
}

impl Scorer for PrefixScorer {
    fn name(&self) -> &'static str {
        "prefix"
    }

    fn score(&self, requirements: &Requirements, runner: &Runner, _: &Scene) -> Option<f64> {
        let (cached, tokens) = self.cache.cached(requirements, runner)?;
        Some(f64::from(cached) / f64::from(tokens))
    }

    fn reads_prompts(&self) -> bool {
        true
    }

    fn chosen(&self, requirements: &Requirements, reservation: Reservation) -> Reservation {
        self.cache.sent(requirements, reservation)
    }

    fn observe(&self, attempt: &Attempt<'_>) {
        self.cache.observe(attempt);
    }
}

impl fmt::Debug for PrefixScorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrefixScorer")
    }
}
