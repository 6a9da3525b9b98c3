//! What one modelled runner can do.

/// The figures of one runner. The defaults are those of a 70-billion-parameter class model on a machine that computes
/// 8,000 prompt tokens per second: a pass over the weights takes 20 ms, and each sequence adds 0.3 ms for reading its
/// keys and values, so one sequence alone gets 49 tokens/s and each of 64 gets 25.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Machine {
    /// Prompt tokens per second.
    pub(crate) prefill_rate: f64,
    /// Seconds of one generating step, whatever the batch.
    pub(crate) step_base: f64,
    /// Seconds that each sequence adds to a generating step.
    pub(crate) step_per_sequence: f64,
    /// Tokens that one iteration computes at most, of prompts and answers.
    pub(crate) budget: u32,
    /// Sequences that run at once.
    pub(crate) slots: u32,
    /// Blocks in memory.
    pub(crate) kv_blocks: u32,
    /// Tokens of one block.
    pub(crate) block_tokens: u32,
    /// How many times longer everything takes; 1 for a healthy runner.
    pub(crate) slowdown: f64,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            prefill_rate: 8_000.0,
            step_base: 0.020,
            step_per_sequence: 0.000_3,
            budget: 2_048,
            slots: 128,
            kv_blocks: 8_000,
            block_tokens: 512,
            slowdown: 1.0,
        }
    }
}

impl Machine {
    /// How long one iteration takes, in nanoseconds, at least one.
    pub(crate) fn iteration(&self, prompt_tokens: u32, generating: u32) -> u64 {
        let prompts = f64::from(prompt_tokens) / self.prefill_rate;
        let answers = match generating {
            0 => 0.0,
            _ => self.step_base + self.step_per_sequence * f64::from(generating),
        };
        ((prompts + answers) * self.slowdown * 1e9).round().max(1.0) as u64
    }

    /// Seconds of a runner's capacity that one token of an answer takes, when `answer_share` of all tokens are those of
    /// answers: its own part of a generating step, and its share of what the step costs whatever the batch.
    pub(crate) fn answer_token(&self, answer_share: f64) -> f64 {
        let batch = (f64::from(self.budget) * answer_share).clamp(1.0, f64::from(self.slots));
        (self.step_base / batch + self.step_per_sequence) * self.slowdown
    }

    /// Seconds that one runner at full capacity needs for all of this if nothing is cached: every iteration has its
    /// whole budget filled with prompt and answer tokens in the proportion of the trace (or, for a trace of long
    /// answers, every slot taken). This is what `--load` is a share of.
    pub(crate) fn seconds_of_work(&self, prompt_tokens: u64, answer_tokens: u64) -> f64 {
        let (prompts, answers) = (prompt_tokens as f64, answer_tokens as f64);
        let share = answers / (prompts + answers).max(1.0);
        prompts / self.prefill_rate + answers * self.answer_token(share)
    }
}
