//! Two policies that the field uses, and a bound, rendered here for comparison only: they are no part of the gateway.
//!
//! Both are given the benefit of the doubt. Neither is slowed down by the time that its knowledge takes to travel:
//! `ref-least-tokens` sees every runner's cache and queue as they are at the very moment of the choice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gateway_core::{Balancer, Candidates, Generation, Requirements, Reservation, Runner};
use tokio::time::Instant;

use super::engine::Engine;
use super::modelled::ModelledRunner;

/// The modelled runners, by number.
pub(crate) type View = Arc<[Arc<ModelledRunner>]>;

/// The id of the runner with that number. Ids sort as numbers do.
pub(crate) fn runner_id(number: usize) -> String {
    format!("runner-{number:04}")
}

fn number(runner: &Runner) -> usize {
    runner.id().as_str().rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Reserves the eligible runner with the smallest cost that is not full; ties are broken at random.
fn cheapest(
    candidates: &Candidates<'_>,
    mut cost: impl FnMut(&Arc<Runner>) -> Option<f64>,
) -> Option<Reservation> {
    let mut best: Option<(usize, f64)> = None;
    let mut ties = 1;
    for (at, runner) in candidates.iter().filter(|(_, runner)| !runner.load().is_full()) {
        let Some(cost) = cost(runner) else { continue };
        let lowest = best.map_or(f64::INFINITY, |(_, lowest)| lowest);
        if cost < lowest {
            (best, ties) = (Some((at, cost)), 1);
        } else if cost == lowest {
            ties += 1;
            if fastrand::u32(..ties) == 0 {
                best = Some((at, cost));
            }
        }
    }
    candidates.try_reserve(best?.0)
}

fn in_flight(runner: &Runner) -> f64 {
    f64::from(runner.load().in_flight)
}

/// Longest prefix match with an imbalance gate, after SGLang's cache-aware policy.
///
/// While the gap between the busiest and the idlest runner is more than 32 requests *and* more than a tenth, the idlest
/// is taken. Otherwise the runner that was sent the longest prefix of the prompt, if that is more than half of it, and
/// else the one whose tree is smallest. What was sent where is remembered per runner, up to the size of its cache; as
/// in the original, a tree may outgrow that between two evictions, which come every 30 s.
pub(crate) struct PrefixGate {
    tree: Mutex<Tree>,
}

struct Tree {
    /// Who was sent a prefix, and when last.
    owners: HashMap<u64, Vec<(usize, u64)>>,
    sizes: Vec<usize>,
    /// Which registration of a runner this is about.
    generations: Vec<Generation>,
    most: usize,
    clock: u64,
    evict: Instant,
}

impl PrefixGate {
    const MATCH: f64 = 0.5;
    const ABSOLUTE: f64 = 32.0;
    const RELATIVE: f64 = 1.1;
    const EVERY: Duration = Duration::from_secs(30);

    pub(crate) fn new(runners: usize, blocks: usize) -> Self {
        let tree = Tree {
            owners: HashMap::new(),
            sizes: vec![0; runners],
            generations: vec![Generation(0); runners],
            most: blocks,
            clock: 0,
            evict: Instant::now() + Self::EVERY,
        };
        Self { tree: Mutex::new(tree) }
    }
}

impl Tree {
    fn insert(&mut self, hashes: &[u64], runner: usize) {
        self.clock += 1;
        for (depth, hash) in hashes.iter().enumerate() {
            // Of what was used at the same time, the end of a prompt goes first.
            let stamp = (self.clock << 16) + u64::from(u16::MAX) - depth as u64;
            let owners = self.owners.entry(*hash).or_default();
            match owners.iter_mut().find(|(owner, _)| *owner == runner) {
                Some((_, used)) => *used = stamp,
                None => {
                    owners.push((runner, stamp));
                    self.sizes[runner] += 1;
                }
            }
        }
        let now = Instant::now();
        if now >= self.evict {
            self.evict = now + PrefixGate::EVERY;
            (0..self.sizes.len()).for_each(|runner| self.shrink(runner, self.most));
        }
    }

    /// A runner that comes back remembers nothing.
    fn notice(&mut self, runner: &Runner) {
        let (number, generation) = (number(runner), runner.key().generation);
        if self.generations[number] != generation {
            self.generations[number] = generation;
            self.shrink(number, 0);
        }
    }

    fn shrink(&mut self, runner: usize, most: usize) {
        let surplus = self.sizes[runner].saturating_sub(most);
        if surplus == 0 {
            return;
        }
        let mine =
            |owners: &[(usize, u64)]| owners.iter().find(|(owner, _)| *owner == runner).map(|own| own.1);
        let mut used: Vec<(u64, u64)> =
            self.owners.iter().filter_map(|(hash, owners)| Some((mine(owners)?, *hash))).collect();
        used.sort_unstable();
        for (_, hash) in &used[..surplus] {
            if let Some(owners) = self.owners.get_mut(hash) {
                owners.retain(|(owner, _)| *owner != runner);
                if owners.is_empty() {
                    self.owners.remove(hash);
                }
            }
        }
        self.sizes[runner] = most;
    }
}

impl Balancer for PrefixGate {
    fn name(&self) -> &'static str {
        "ref-prefix-gate"
    }

    fn reads_prompts(&self) -> bool {
        true
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let hashes = requirements.workload.prefix.hashes();
        let mut tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        candidates.iter().for_each(|(_, runner)| tree.notice(runner));
        let loads = candidates.iter().map(|(_, runner)| in_flight(runner));
        let (least, most) = loads
            .fold((f64::INFINITY, 0.0), |(least, most): (f64, f64), load| (least.min(load), most.max(load)));
        let imbalanced = most - least > Self::ABSOLUTE && most > least * Self::RELATIVE;
        let matched = hashes.iter().take_while(|hash| tree.owners.contains_key(hash)).count();
        let ratio = matched as f64 / hashes.len().max(1) as f64;
        let reservation = if imbalanced {
            None
        } else if ratio > Self::MATCH {
            let owners = &tree.owners[&hashes[matched - 1]];
            let owns = |runner: &Runner| owners.iter().any(|(owner, _)| *owner == number(runner));
            cheapest(candidates, |runner| owns(runner).then_some(0.0))
        } else {
            cheapest(candidates, |runner| Some(tree.sizes[number(runner)] as f64))
        };
        // The original knows no slots; where its favourite has none left, it gets what the gate would choose.
        let reservation = reservation.or_else(|| cheapest(candidates, |runner| Some(in_flight(runner))))?;
        tree.insert(hashes, number(reservation.runner()));
        Some(reservation)
    }
}

/// Least `prefill tokens not cached + decode blocks`, after the cost of Dynamo's KV router at its default weight of 1.
///
/// Prompt tokens that are not cached, of this request and of those on the runner whose answer has not begun, plus the
/// distinct blocks of all requests on the runner with this one. The original counts the tokens in blocks too
/// (`ref-least-tokens`); added up just as they are, tokens decide and blocks only break ties (`ref-least-tokens-raw`).
pub(crate) struct LeastTokens {
    pub(crate) view: View,
    pub(crate) in_blocks: bool,
}

impl Balancer for LeastTokens {
    fn name(&self) -> &'static str {
        if self.in_blocks { "ref-least-tokens" } else { "ref-least-tokens-raw" }
    }

    fn reads_prompts(&self) -> bool {
        true
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let prefix = &requirements.workload.prefix;
        let per_block = u64::from(prefix.tokens_per_block().max(1));
        let unit = if self.in_blocks { per_block as f64 } else { 1.0 };
        let prompt = u64::from(requirements.workload.prompt_tokens.unwrap_or(0));
        let cost = |engine: &Engine| {
            let cached = engine.cached_prefix(prefix.hashes()) as u64 * per_block;
            let demand = engine.demand();
            let tokens = demand.announced_tokens + prompt.saturating_sub(cached);
            tokens as f64 / unit + demand.active_blocks_with(prefix.hashes()) as f64
        };
        cheapest(candidates, |runner| Some(self.view[number(runner)].look(cost)))
    }
}

/// Not a policy but what one could hope for: every runner finds what any of them has computed (the run gives them one
/// cache of the same total size), and the one with the least left to compute is known exactly.
pub(crate) struct Ideal {
    pub(crate) view: View,
}

impl Balancer for Ideal {
    fn name(&self) -> &'static str {
        "ideal"
    }

    fn pick(&self, _: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        cheapest(candidates, |runner| {
            let (tokens, generating) = self.view[number(runner)].look(Engine::backlog);
            // The second only breaks ties of the first.
            Some(tokens as f64 + generating as f64 * 1e-3)
        })
    }
}
