//! A load of our own making: conversations that grow turn by turn, of tenants with a system prompt each.

use fastrand::Rng;

use super::trace::{BLOCK_TOKENS, Line};

/// What the synthetic load is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Synthetic {
    pub(crate) requests: usize,
    pub(crate) tenants: usize,
    pub(crate) seed: u64,
}

/// Conversations begin at random (Poisson), this many a second; `--load` and `--speedup` change it.
const CONVERSATIONS_PER_S: f64 = 1.0;
/// Chance that another turn follows: four turns on average.
const ANOTHER_TURN: f64 = 0.75;
/// Mean time between an answer's request and the next turn's, in seconds.
const THINKING_S: f64 = 20.0;
/// Mean tokens of what a person says, of an answer, and blocks of a tenant's system prompt.
const SAID: f64 = 500.0;
const ANSWERED: f64 = 150.0;
const SYSTEM_BLOCKS: u64 = 3;
/// No conversation grows beyond this many tokens.
const LONGEST: u32 = 16_384;

struct Turn {
    at: f64,
    conversation: u64,
    tenant: usize,
    prompt: u32,
    answer: u32,
}

impl Synthetic {
    /// The requests, in order of arrival.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let mut rng = Rng::with_seed(self.seed);
        let mut turns = Vec::new();
        let (mut begin, mut conversation) = (0.0, 0);
        while turns.len() < self.requests {
            begin += exponential(&mut rng, 1.0 / CONVERSATIONS_PER_S);
            conversation += 1;
            self.converse(&mut rng, begin, conversation, &mut turns);
        }
        turns.truncate(self.requests);
        turns.sort_by(|a, b| a.at.total_cmp(&b.at));
        // Ids below this are those of system prompts.
        let mut fresh = self.tenants as u64 * SYSTEM_BLOCKS;
        let mut known: Vec<Vec<u64>> = vec![Vec::new(); conversation as usize + 1];
        turns.iter().map(|turn| self.line(turn, &mut known[turn.conversation as usize], &mut fresh)).collect()
    }

    fn converse(&self, rng: &mut Rng, begin: f64, conversation: u64, turns: &mut Vec<Turn>) {
        let tenant = self.draw_tenant(rng);
        let mut at = begin;
        let mut prompt = SYSTEM_BLOCKS as u32 * BLOCK_TOKENS;
        loop {
            prompt += 1 + exponential(rng, SAID) as u32;
            let answer = 1 + exponential(rng, ANSWERED) as u32;
            turns.push(Turn { at, conversation, tenant, prompt, answer });
            prompt += answer;
            if prompt > LONGEST || rng.f64() > ANOTHER_TURN {
                return;
            }
            at += 1.0 + exponential(rng, THINKING_S);
        }
    }

    /// The first tenant sends twice as much as the second, and so on.
    fn draw_tenant(&self, rng: &mut Rng) -> usize {
        (0..self.tenants.saturating_sub(1)).find(|_| rng.bool()).unwrap_or(self.tenants.saturating_sub(1))
    }

    /// Full blocks keep their ids from turn to turn; the last, partly filled one is new every time.
    fn line(&self, turn: &Turn, full: &mut Vec<u64>, fresh: &mut u64) -> Line {
        let system = (0..SYSTEM_BLOCKS).map(|block| turn.tenant as u64 * SYSTEM_BLOCKS + block);
        if full.is_empty() {
            full.extend(system);
        }
        let mut new = || {
            *fresh += 1;
            *fresh
        };
        while full.len() < (turn.prompt / BLOCK_TOKENS) as usize {
            full.push(new());
        }
        let mut hash_ids = full.clone();
        if !turn.prompt.is_multiple_of(BLOCK_TOKENS) {
            hash_ids.push(new());
        }
        Line {
            timestamp: (turn.at * 1e3) as u64,
            input_length: turn.prompt,
            output_length: turn.answer,
            hash_ids,
            session: Some(turn.conversation),
            tenant: Some(format!("tenant-{}", turn.tenant)),
        }
    }
}

fn exponential(rng: &mut Rng, mean: f64) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}
