//! One runner's engine: continuous batching with chunked prefill, in the manner of vLLM's scheduler.
//!
//! Each iteration has a budget of tokens. Every sequence that generates takes one; what is left goes to prompts, in
//! the order of their arrival, and a long prompt is spread over several iterations. An iteration takes
//!
//! ```text
//! prompt tokens / prefill rate  +  (sequences that generate > 0 ? a + b × sequences : 0)
//! ```
//!
//! so that tokens per second of one sequence fall as the batch grows: `a` is the pass over the weights, `b` the reading
//! of one sequence's keys and values. A sequence's first token is there at the end of the iteration that computes the
//! last of its prompt. Iterations that only generate are taken together up to the next end of a sequence, so the cost of
//! simulating does not grow with the length of answers.
//!
//! No clock and no I/O: the caller says up to when to compute, and hears what happened until then. Times are
//! nanoseconds from the start of the run.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::cache::BlockCache;
use super::machine::Machine;

/// Nanoseconds since the start of a run.
pub(crate) type Nanos = u64;

/// A request as the engine sees it.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) id: usize,
    pub(crate) prompt_tokens: u32,
    pub(crate) answer_tokens: u32,
    /// One cumulative hash per block of the prompt.
    pub(crate) blocks: Arc<[u64]>,
}

/// Something that whoever sent a job wants to know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Event {
    pub(crate) job: usize,
    pub(crate) at: Nanos,
    /// Tokens of the answer so far.
    pub(crate) tokens: u32,
    /// Set with the first token: what of the prompt was in the cache.
    pub(crate) first: Option<Cached>,
    pub(crate) done: bool,
}

/// What of a prompt did not need computing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cached {
    pub(crate) blocks: u32,
    pub(crate) tokens: u32,
}

struct Sequence {
    job: Job,
    /// Prompt tokens that are in memory.
    computed: u32,
    cached: Cached,
    /// Leading blocks that are pinned; the others are private.
    published: usize,
    /// Blocks set aside for the answer.
    extra: usize,
    /// Prompt tokens that were not cached when it arrived.
    announced: u64,
    /// The engine's count of generating steps at its first and its last token.
    first_step: u64,
    last_step: u64,
}

/// Iterations that are under way: one with prompts in it, or several that only generate.
struct Span {
    start: Nanos,
    step: Nanos,
    steps: u64,
    /// Which job computes how many prompt tokens.
    chunks: Vec<(usize, u32)>,
}

impl Span {
    fn end(&self) -> Nanos {
        self.start + self.step * self.steps
    }
}

/// What a runner has computed: tokens of prompts that were not in its cache, and of answers but for their first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Work {
    pub(crate) prompt_tokens: u64,
    pub(crate) answer_tokens: u64,
}

/// What is to be done on a runner, as a router with perfect knowledge would count it.
pub(crate) struct Demand {
    /// Prompt tokens, not cached at arrival, of requests without a first token.
    pub(crate) announced_tokens: u64,
    /// Distinct prompt blocks of all requests on the runner.
    active: HashMap<u64, u32>,
}

impl Demand {
    /// Distinct prompt blocks on the runner if these came too.
    pub(crate) fn active_blocks_with(&self, blocks: &[u64]) -> usize {
        self.active.len() + blocks.iter().filter(|hash| !self.active.contains_key(hash)).count()
    }
}

pub(crate) struct Engine {
    machine: Machine,
    cache: Arc<Mutex<BlockCache>>,
    waiting: VecDeque<Sequence>,
    prefilling: Vec<Sequence>,
    generating: Vec<Sequence>,
    demand: Demand,
    span: Option<Span>,
    now: Nanos,
    steps: u64,
    done: Work,
}

impl Engine {
    /// Steps after which those who listen hear how far an answer is.
    pub(crate) const PROGRESS: u64 = 32;

    pub(crate) fn new(machine: Machine, cache: Arc<Mutex<BlockCache>>) -> Self {
        Self {
            machine,
            cache,
            waiting: VecDeque::new(),
            prefilling: Vec::new(),
            generating: Vec::new(),
            demand: Demand { announced_tokens: 0, active: HashMap::new() },
            span: None,
            now: 0,
            steps: 0,
            done: Work::default(),
        }
    }

    /// Computes up to `until`, which must not lie before an earlier one.
    pub(crate) fn advance(&mut self, until: Nanos, events: &mut Vec<Event>) {
        loop {
            // Only when time passes, so that all that come at one moment are seen together.
            if self.span.is_none() && self.now < until {
                self.span = self.schedule();
            }
            match self.span.take() {
                Some(span) if span.end() <= until => self.complete(span, events),
                other => {
                    self.span = other;
                    self.now = self.now.max(until);
                    return;
                }
            }
        }
    }

    /// Takes a job at the time up to which was computed.
    pub(crate) fn submit(&mut self, job: Job) {
        let hits = self.cache.lock().unwrap_or_else(PoisonError::into_inner).prefix(&job.blocks);
        let cached = self.cached(&job, hits);
        let announced = u64::from(job.prompt_tokens - cached.tokens);
        self.demand.announced_tokens += announced;
        for hash in &*job.blocks {
            *self.demand.active.entry(*hash).or_default() += 1;
        }
        self.waiting.push_back(Sequence {
            extra: self.extra(&job),
            job,
            computed: 0,
            cached,
            published: 0,
            announced,
            first_step: 0,
            last_step: 0,
        });
        self.interrupt();
    }

    /// Whether a job could ever run.
    pub(crate) fn fits(&self, job: &Job) -> bool {
        job.blocks.len() + self.extra(job) <= self.machine.kv_blocks as usize
    }

    /// Takes over the clock of an engine that it replaces.
    pub(crate) fn resume(&mut self, now: Nanos, done: Work) {
        (self.now, self.done) = (now, done);
    }

    /// Gives a job up; its place in the iteration under way stays paid for.
    pub(crate) fn cancel(&mut self, job: usize) {
        let take = |list: &mut Vec<Sequence>| {
            let at = list.iter().position(|sequence| sequence.job.id == job)?;
            Some(list.remove(at))
        };
        if let Some(sequence) = take(&mut self.prefilling).or_else(|| take(&mut self.generating)) {
            self.release(&sequence, true);
            self.interrupt();
        } else if let Some(at) = self.waiting.iter().position(|sequence| sequence.job.id == job)
            && let Some(sequence) = self.waiting.remove(at)
        {
            self.release(&sequence, false);
        }
    }

    /// When something happens next if nothing comes. `None` while idle.
    pub(crate) fn next(&self) -> Option<Nanos> {
        let idle = self.waiting.is_empty() && self.prefilling.is_empty() && self.generating.is_empty();
        self.span.as_ref().map(Span::end).or_else(|| (!idle).then_some(self.now + 1))
    }

    /// What it has computed so far.
    pub(crate) fn done(&self) -> Work {
        self.done
    }

    /// Running and waiting requests.
    pub(crate) fn load(&self) -> (u32, u32) {
        let running = self.prefilling.len() + self.generating.len();
        (u32::try_from(running).unwrap_or(u32::MAX), u32::try_from(self.waiting.len()).unwrap_or(u32::MAX))
    }

    /// Leading blocks of a prompt that are cached now.
    pub(crate) fn cached_prefix(&self, blocks: &[u64]) -> usize {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).prefix(blocks)
    }

    pub(crate) fn demand(&self) -> &Demand {
        &self.demand
    }

    /// Prompt tokens still to compute, and sequences that generate.
    pub(crate) fn backlog(&self) -> (u64, usize) {
        let left = |sequence: &Sequence| u64::from(sequence.job.prompt_tokens - sequence.computed);
        let waiting = self.waiting.iter().map(|sequence| sequence.announced).sum::<u64>();
        (waiting + self.prefilling.iter().map(left).sum::<u64>(), self.generating.len())
    }

    /// Blocks that prompt and answer take beyond those of the prompt.
    fn extra(&self, job: &Job) -> usize {
        let all = (job.prompt_tokens + job.answer_tokens).div_ceil(self.machine.block_tokens);
        (all as usize).saturating_sub(job.blocks.len())
    }

    /// Steps that only generate were taken together in the belief that nothing changes: now the one under way is the
    /// last of them.
    fn interrupt(&mut self) {
        if let Some(span) = self.span.as_mut().filter(|span| span.chunks.is_empty()) {
            span.steps = (self.now - span.start).div_ceil(span.step).clamp(1, span.steps);
        }
    }

    /// Nobody's cache serves the last token: its logits are what the answer begins with.
    fn cached(&self, job: &Job, hits: usize) -> Cached {
        let blocks = u32::try_from(hits).unwrap_or(u32::MAX);
        let tokens = blocks.saturating_mul(self.machine.block_tokens);
        Cached { blocks, tokens: tokens.min(job.prompt_tokens.saturating_sub(1)) }
    }

    fn schedule(&mut self) -> Option<Span> {
        let generating = u32::try_from(self.generating.len()).unwrap_or(u32::MAX);
        let mut budget = self.machine.budget.saturating_sub(generating).max(1);
        let mut chunks = Vec::new();
        let mut prompt_tokens = 0;
        let mut take = |sequence: &Sequence, budget: &mut u32| {
            let tokens = (sequence.job.prompt_tokens - sequence.computed).min(*budget);
            *budget -= tokens;
            prompt_tokens += tokens;
            chunks.push((sequence.job.id, tokens));
        };
        for sequence in &self.prefilling {
            if budget > 0 {
                take(sequence, &mut budget);
            }
        }
        while budget > 0 && self.prefilling.len() + self.generating.len() < self.machine.slots as usize {
            let Some(sequence) = self.admit() else { break };
            take(&sequence, &mut budget);
            self.prefilling.push(sequence);
        }
        let step = self.machine.iteration(prompt_tokens, generating);
        let steps = if chunks.is_empty() {
            let last = self.generating.iter().map(|sequence| sequence.last_step).min()?;
            (last - self.steps).min(Self::PROGRESS - self.steps % Self::PROGRESS)
        } else {
            1
        };
        Some(Span { start: self.now, step, steps, chunks })
    }

    /// The first of those that wait, if there is room for it.
    fn admit(&mut self) -> Option<Sequence> {
        let first = self.waiting.front()?;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let hits = cache.admit(&first.job.blocks, first.extra)?;
        drop(cache);
        let mut sequence = self.waiting.pop_front()?;
        sequence.cached = self.cached(&sequence.job, hits);
        sequence.computed = sequence.cached.tokens;
        sequence.published = hits;
        Some(sequence)
    }

    fn complete(&mut self, span: Span, events: &mut Vec<Event>) {
        self.now = span.end();
        self.done.answer_tokens += span.steps * self.generating.len() as u64;
        self.done.prompt_tokens += span.chunks.iter().map(|(_, tokens)| u64::from(*tokens)).sum::<u64>();
        if !self.generating.is_empty() {
            self.generated(span.steps, events);
        }
        for (job, tokens) in span.chunks {
            // It may have been given up meanwhile.
            if let Some(at) = self.prefilling.iter().position(|sequence| sequence.job.id == job) {
                self.prefilled(at, tokens, events);
            }
        }
    }

    fn generated(&mut self, steps: u64, events: &mut Vec<Event>) {
        self.steps += steps;
        let tell = self.steps.is_multiple_of(Self::PROGRESS);
        let mut at = 0;
        while let Some(sequence) = self.generating.get(at) {
            let done = sequence.last_step <= self.steps;
            if tell || done {
                let tokens = u32::try_from(1 + self.steps - sequence.first_step).unwrap_or(u32::MAX);
                events.push(Event { job: sequence.job.id, at: self.now, tokens, first: None, done });
            }
            if done {
                let sequence = self.generating.remove(at);
                self.release(&sequence, true);
            } else {
                at += 1;
            }
        }
    }

    fn prefilled(&mut self, at: usize, tokens: u32, events: &mut Vec<Event>) {
        let sequence = &mut self.prefilling[at];
        sequence.computed += tokens;
        let whole = sequence.computed == sequence.job.prompt_tokens;
        let blocks = sequence.job.blocks.len();
        let computed = (sequence.computed / self.machine.block_tokens) as usize;
        let published = if whole { blocks } else { computed.min(blocks) };
        if published > sequence.published {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            for hash in &sequence.job.blocks[sequence.published..published] {
                cache.publish(*hash);
            }
            sequence.published = published;
        }
        if !whole {
            return;
        }
        let mut sequence = self.prefilling.remove(at);
        self.demand.announced_tokens -= std::mem::take(&mut sequence.announced);
        sequence.first_step = self.steps;
        sequence.last_step = self.steps + u64::from(sequence.job.answer_tokens.saturating_sub(1));
        let done = sequence.last_step == self.steps;
        events.push(Event {
            job: sequence.job.id,
            at: self.now,
            tokens: 1,
            first: Some(sequence.cached),
            done,
        });
        if done {
            self.release(&sequence, true);
        } else {
            self.generating.push(sequence);
        }
    }

    fn release(&mut self, sequence: &Sequence, admitted: bool) {
        self.demand.announced_tokens -= sequence.announced;
        for hash in &*sequence.job.blocks {
            if let Some(count) = self.demand.active.get_mut(hash) {
                *count -= 1;
                if *count == 0 {
                    self.demand.active.remove(hash);
                }
            }
        }
        if admitted {
            let (used, private) = sequence.job.blocks.split_at(sequence.published);
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.release(used, private.len() + sequence.extra);
        }
    }
}
