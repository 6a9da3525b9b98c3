//! Sends prompts where their beginnings are cached, unless it takes less time elsewhere.

mod cache_model;
mod holders;
mod index;
mod numbered;
mod pace;

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use holders::Holders;
use index::{PrefixIndex, Prompt};
use numbered::Numbered;
use pace::{Backlog, Millis, Pace};

use super::choice::{LOOKS, reserve_whoever, slots};
use super::mix::fnv1a;
use super::{Balancer, Candidates, Score};
use crate::dispatch::{Attempt, Fault, Outcome};
use crate::router::Requirements;
use crate::runner::{Least, Reservation, Runner};

/// Sends a prompt to the runner on which its answer will probably begin first, minding whose cache has its
/// beginning.
///
/// Use it for chats, agents and anything else whose prompts have long beginnings in common. What a runner has
/// cached is reckoned from what was sent there: a bounded index of the hashes of prompts' blocks
/// ([`Workload::prefix`](crate::Workload::prefix)), with a model of each runner's least-recently-used cache.
/// No engine need tell anything.
///
/// The time to the first token is reckoned as what the runner has yet to read and what of this prompt it has
/// not cached, at the speed at which it has been seen to read. What is not cached counts
/// [twice](PrefixCache::READ_AND_KEPT): it takes time, and it takes the place of something in the cache. Thus
/// the holder of a prefix is favoured only as long as its queue is shorter than the work that is saved, and a
/// favourite never drowns. Reports of runners have no part in it, so stale ones do no harm.
///
/// Measured with the example `simulate` on Mooncake's conversation trace (12,031 requests, 8 and 32 runners,
/// loads of 0.7 to 0.95): 91 to 94 % of the hits of one ideal cache of the same total size, and at a load of
/// 0.95 a 99th percentile of the time to first token of 0.29 and 0.24 times that of round-robin.
///
/// Costs a look at each candidate and one at each block of the prompt, some microseconds for a long prompt and
/// tens of runners, without a lock or an allocation. Of more than [`PrefixCache::SURVEYED`] candidates only
/// those are looked at who have some of the prompt, the least loaded one, and [`PrefixCache::DRAWN`] drawn at
/// random, so that ten thousand cost little more than a hundred. Memory: [`PrefixCache::ENTRIES`] entries of 8 bytes, and
/// less than a kilobyte and a half for each runner.
pub struct PrefixCache {
    index: PrefixIndex,
    peers: Numbered<Peer>,
    /// Of all runners together.
    pace: Pace,
    born: Instant,
}

/// What is known of one runner, by its number.
#[derive(Default)]
struct Peer {
    /// Which generation it is about, plus one.
    owner: AtomicU64,
    backlog: Backlog,
    pace: Pace,
}

struct Estimate {
    cost: f32,
    /// Tokens to read before this prompt.
    ahead: f32,
    cached: u32,
    uncached: u32,
}

struct Question<'q> {
    prompt: Prompt<'q>,
    tokens: u32,
    holders: Holders,
    /// Of all runners, in tokens per second.
    pace: f32,
    instant: Instant,
    now: Millis,
}

impl PrefixCache {
    /// 2^20 entries, 8 MiB: one for each block that a runner has. Eight runners with 8,000 blocks each need
    /// 64,000.
    pub const ENTRIES: usize = 1 << 20;
    /// Tokens that a runner's cache is taken to hold: 8,000 blocks of 512, the runners of the simulator. Say
    /// what yours have with [`PrefixCache::new`]: engines print it when they start.
    pub const CACHE_TOKENS: u32 = 8_000 * 512;
    /// How much a token that is not cached counts: once for being read, once for what it drives out of the
    /// cache. Reasoned so, and the figures above are with it.
    pub const READ_AND_KEPT: f32 = 2.0;
    /// Tokens that every prompt waits for besides: half of what common engines put into one batch (vLLM's
    /// `max_num_batched_tokens` of 2,048), which is under way when it comes.
    const BATCH: f32 = 1_024.0;
    /// How much longer a runner needs whose slots are all taken: it generates between the parts of a prompt.
    const CROWDED: f32 = 0.25;
    /// Tokens per second as long as nothing was measured. Only differences between runners matter then, and
    /// there are none.
    const ASSUMED_PACE: f32 = 8_000.0;

    /// So many candidates are all looked at.
    pub const SURVEYED: usize = 256;
    /// How many are drawn from more. With two it would be the power of two choices, and each more helps less;
    /// so many take a microsecond.
    pub const DRAWN: usize = 24;

    /// For runners whose caches hold so many tokens.
    pub fn new(cache_tokens: u32) -> Self {
        Self {
            index: PrefixIndex::new(Self::ENTRIES, cache_tokens),
            peers: Numbered::new(),
            pace: Pace::default(),
            born: Instant::now(),
        }
    }

    /// Bytes that index and runners take.
    pub fn memory(&self) -> usize {
        self.index.memory() + self.peers.memory()
    }

    fn millis(&self, now: Instant) -> Millis {
        now.saturating_duration_since(self.born).as_millis() as Millis
    }

    fn prompt<'q>(&self, requirements: &'q Requirements) -> Prompt<'q> {
        let prefix = &requirements.workload.prefix;
        let model = requirements.model.as_ref().map_or("", |model| model.as_str());
        Prompt {
            hashes: prefix.hashes(),
            tokens_per_block: prefix.tokens_per_block(),
            salt: fnv1a(model.as_bytes()),
        }
    }

    fn number(runner: &Runner) -> Option<u16> {
        u16::try_from(runner.number()).ok()
    }

    /// Its number and what is known of it, which is forgotten first if it is about a runner that had the number
    /// before.
    fn peer(&self, runner: &Runner) -> Option<(u16, &Peer)> {
        let number = Self::number(runner)?;
        let peer = self.peers.get(number);
        let owner = runner.key().generation.0.wrapping_add(1);
        if peer.owner.load(Ordering::Relaxed) != owner && peer.owner.swap(owner, Ordering::Relaxed) != owner {
            self.index.renumbered(number);
            peer.backlog.clear();
            peer.pace.clear();
        }
        Some((number, peer))
    }

    fn question<'q>(&self, requirements: &'q Requirements, instant: Instant) -> Question<'q> {
        let prompt = self.prompt(requirements);
        let holders = if prompt.hashes.is_empty() { Holders::none() } else { self.index.holders(&prompt) };
        let blocks = (prompt.hashes.len() as u32).saturating_mul(prompt.tokens_per_block);
        let tokens = requirements.workload.prompt_tokens.unwrap_or(blocks);
        let now = self.millis(instant);
        let pace = self.pace.tokens_per_s(Self::ASSUMED_PACE, now);
        Question { prompt, tokens, holders, pace, instant, now }
    }

    /// How many tokens of a prompt a runner has, and of how many; `None` if nothing is known of the prompt.
    pub(super) fn cached(&self, requirements: &Requirements, runner: &Runner) -> Option<(u32, u32)> {
        let prompt = self.prompt(requirements);
        let blocks = u32::try_from(prompt.hashes.len()).ok().filter(|blocks| *blocks > 0)?;
        let all = blocks.saturating_mul(prompt.tokens_per_block);
        let tokens = requirements.workload.prompt_tokens.unwrap_or(all).max(1);
        let number = Self::number(runner).filter(|_| self.is_known(runner));
        let blocks = number.map_or(0, |number| self.index.depth(&prompt, number));
        Some((blocks.saturating_mul(prompt.tokens_per_block).min(tokens - 1), tokens))
    }

    /// A prompt goes to a runner, whoever chose it.
    pub(super) fn sent(&self, requirements: &Requirements, reservation: Reservation) -> Reservation {
        let (cached, _) = self.cached(requirements, reservation.runner()).unwrap_or_default();
        if let Some((number, _)) = self.peer(reservation.runner()) {
            self.index.record(&self.prompt(requirements), number, true);
        }
        let reservation = reservation.with_cached(cached);
        if cached > 0 { reservation.because("prefix") } else { reservation }
    }

    /// Whether what is known under its number is about this runner.
    fn is_known(&self, runner: &Runner) -> bool {
        let owner = runner.key().generation.0.wrapping_add(1);
        Self::number(runner)
            .is_some_and(|number| self.peers.get(number).owner.load(Ordering::Relaxed) == owner)
    }

    fn estimate(&self, question: &Question<'_>, runner: &Runner) -> Option<Estimate> {
        let load = runner.load_at(question.instant);
        if load.is_full() {
            return None;
        }
        // The holders were looked up before it is found out that a number has changed hands.
        let is_known = self.is_known(runner);
        let (blocks, ahead, pace) = match self.peer(runner) {
            Some((number, peer)) => {
                let pace = peer.pace.tokens_per_s(question.pace, question.now);
                let ahead = peer.backlog.tokens(load.prefill_tokens, pace, question.now);
                (if is_known { question.holders.blocks(number) } else { 0 }, ahead, pace)
            }
            None => (0, load.prefill_tokens as f32, question.pace),
        };
        let cached = blocks.saturating_mul(question.prompt.tokens_per_block);
        let cached = cached.min(question.tokens.saturating_sub(1));
        let uncached = question.tokens - cached;
        let work = ahead + Self::READ_AND_KEPT * uncached as f32 + Self::BATCH;
        // Of our own requests only: reports would bring their age into it.
        let crowd = f64::from(load.in_flight) / slots(&load);
        let cost = work / pace * (1.0 + Self::CROWDED * crowd.min(1.0) as f32);
        Some(Estimate { cost, ahead, cached, uncached })
    }

    fn best(&self, question: &Question<'_>, candidates: &Candidates<'_>) -> Option<(usize, Estimate)> {
        if candidates.len() > Self::SURVEYED {
            let best = self.best_known(question, candidates);
            if best.is_some() {
                return best;
            }
        }
        let all = candidates.iter().filter_map(|(at, runner)| Some((at, self.estimate(question, runner)?)));
        soonest(all)
    }

    /// Of those who have some of the prompt, the least loaded, and some more drawn at random.
    fn best_known(&self, question: &Question<'_>, candidates: &Candidates<'_>) -> Option<(usize, Estimate)> {
        let holders = question.holders.iter();
        let holders = holders.filter_map(|(number, _)| candidates.place_of(u32::from(number)));
        let least = match candidates.least() {
            Least::At(at) => Some(at),
            Least::Nobody | Least::Unclear => None,
        };
        let drawn = (0..Self::DRAWN).map(|_| fastrand::usize(..candidates.len()));
        let known = holders.chain(least).chain(drawn);
        soonest(known.filter_map(|at| Some((at, self.estimate(question, candidates.get(at)?)?))))
    }

    fn reserve(
        &self,
        question: &Question<'_>,
        candidates: &Candidates<'_>,
        at: usize,
        estimate: &Estimate,
    ) -> Option<Reservation> {
        let Estimate { ahead, cached, uncached, .. } = *estimate;
        let to_read = (ahead + uncached as f32) as u64;
        let reservation = candidates.try_reserve(at)?.with_cached(cached).with_ahead(to_read);
        if let Some((number, peer)) = self.peer(reservation.runner()) {
            peer.backlog.add(ahead, uncached, question.now);
            self.index.record(&question.prompt, number, true);
        }
        Some(if cached > 0 { reservation.because("prefix") } else { reservation })
    }
}

/// The one with the least cost, drawn evenly from all that have it.
fn soonest(estimates: impl Iterator<Item = (usize, Estimate)>) -> Option<(usize, Estimate)> {
    let mut best: Option<(usize, Estimate)> = None;
    let mut ties = 1;
    for (at, estimate) in estimates {
        let lowest = best.as_ref().map_or(f32::INFINITY, |(_, best)| best.cost);
        if estimate.cost < lowest {
            (best, ties) = (Some((at, estimate)), 1);
        } else if estimate.cost == lowest {
            ties += 1;
            if fastrand::u32(..ties) == 0 {
                best = Some((at, estimate));
            }
        }
    }
    best
}

impl Default for PrefixCache {
    /// For caches of [`PrefixCache::CACHE_TOKENS`].
    fn default() -> Self {
        Self::new(Self::CACHE_TOKENS)
    }
}

impl Balancer for PrefixCache {
    fn name(&self) -> &'static str {
        "prefix-cache"
    }

    fn reads_prompts(&self) -> bool {
        true
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let question = self.question(requirements, candidates.now());
        for _ in 0..LOOKS {
            let (at, estimate) = self.best(&question, candidates)?;
            if let Some(reservation) = self.reserve(&question, candidates, at, &estimate) {
                return Some(reservation);
            }
        }
        reserve_whoever(candidates, |_| true)
    }

    /// `cached_tokens`, `tokens_ahead`, `tokens_per_s`, and `seconds`, of which the least is best.
    fn scores(&self, requirements: &Requirements, runner: &Runner, scores: &mut Vec<Score>) {
        let question = self.question(requirements, Instant::now());
        let Some(estimate) = self.estimate(&question, runner) else { return };
        let pace = self.peer(runner).map(|(_, peer)| peer.pace.tokens_per_s(question.pace, question.now));
        let pace = pace.unwrap_or(question.pace);
        let mut score = |name, value: f32| scores.push(Score { name, value: f64::from(value) });
        score("cached_tokens", estimate.cached as f32);
        score("tokens_ahead", estimate.ahead);
        score("tokens_per_s", pace);
        score("seconds", estimate.cost);
    }

    fn observe(&self, attempt: &Attempt<'_>) {
        let Some((number, peer)) = self.peer(attempt.runner) else { return };
        let prefix = &attempt.workload.prefix;
        let prompt = Prompt {
            hashes: prefix.hashes(),
            tokens_per_block: prefix.tokens_per_block(),
            salt: fnv1a(attempt.model.map_or("", |model| model.as_str()).as_bytes()),
        };
        // One that refuses has read nothing. One that breaks off or is left has, if its answer had begun.
        let refused = matches!(
            attempt.outcome,
            Outcome::ClientFault
                | Outcome::Overloaded
                | Outcome::NeverSent
                | Outcome::RunnerFault(Fault::Status)
        );
        let Some(first_byte) = attempt.first_byte.filter(|_| !refused) else {
            self.index.take_back(&prompt, number);
            return;
        };
        self.index.record(&prompt, number, false);
        let now = self.millis(Instant::now());
        if attempt.outcome == Outcome::Success && attempt.streamed {
            let tokens = attempt.prefill_tokens as f32;
            peer.pace.add(tokens, first_byte.as_secs_f32(), now);
            self.pace.add(tokens, first_byte.as_secs_f32(), now);
        }
    }
}
