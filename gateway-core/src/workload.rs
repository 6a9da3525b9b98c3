//! How much work a request is.

use std::sync::Arc;
use std::time::Duration;

/// How much work a request is, and what of it a runner may have done already. Estimates, for balancers:
/// nothing is refused for them, and what is left out is unknown, not zero.
///
/// ```
/// use gateway_core::{PromptBlocks, Workload};
/// let workload = Workload {
///     prompt_tokens: Some(1_000),
///     prefix: PromptBlocks::new([17, 4], 512),
///     ..Workload::default()
/// };
/// assert_eq!(workload.tokens(), 1_000 + Workload::MEAN_ANSWER);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Workload {
    /// Tokens of the prompt.
    pub prompt_tokens: Option<u32>,
    /// The most tokens that the answer may have.
    pub max_tokens: Option<u32>,
    /// A hash of what names the conversation: whoever is asked again may still have it in mind.
    pub session: Option<u64>,
    /// The prompt, block by block.
    pub prefix: PromptBlocks,
    /// How long after its arrival the whole answer is still of use. Strategies are told how much of that is left.
    pub deadline: Option<Duration>,
}

impl Workload {
    /// The most that an answer is taken for when it is planned with, in tokens: clients set `max_tokens`
    /// far higher than answers are long. The production trace that this project is measured with (Mooncake's
    /// conversations) has a mean of 343 and a 95th percentile of 838.
    pub const LIKELY_ANSWER: u32 = 512;

    /// What an answer is taken for when nobody says how long it may be, in tokens: the mean of that trace.
    pub const MEAN_ANSWER: u32 = 343;

    /// Tokens that a runner is kept busy with, prompt and likely answer together. 0 if nothing is known.
    pub fn tokens(&self) -> u32 {
        match self.prompt_tokens {
            // One that has no limit is longer than many that have.
            Some(prompt) if self.max_tokens.is_none() => prompt.saturating_add(Self::MEAN_ANSWER),
            prompt => prompt.unwrap_or(0).saturating_add(self.likely_answer()),
        }
    }

    /// Tokens that the answer will probably have at most. 0 if nothing is known.
    pub fn likely_answer(&self) -> u32 {
        self.max_tokens.map_or(0, |most| most.min(Self::LIKELY_ANSWER))
    }
}

/// A prompt as a row of block hashes. Each hash stands for its block *and all before it*, so two prompts
/// have a prefix in common exactly as far as their hashes are equal. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PromptBlocks {
    hashes: Option<Arc<[u64]>>,
    tokens_per_block: u32,
}

impl PromptBlocks {
    /// The hashes, first block first, and how many tokens a block stands for (at least 1).
    pub fn new(hashes: impl Into<Arc<[u64]>>, tokens_per_block: u32) -> Self {
        Self { hashes: Some(hashes.into()), tokens_per_block: tokens_per_block.max(1) }
    }

    /// The hashes, first block first.
    pub fn hashes(&self) -> &[u64] {
        self.hashes.as_deref().unwrap_or_default()
    }

    /// How many tokens a block stands for; 0 if there are no blocks.
    pub fn tokens_per_block(&self) -> u32 {
        self.tokens_per_block
    }

    /// Whether nothing is known of the prompt.
    pub fn is_empty(&self) -> bool {
        self.hashes().is_empty()
    }
}
