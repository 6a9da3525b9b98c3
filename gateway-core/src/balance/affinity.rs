use super::choice::reserve_whoever;
use super::mix::mix;
use super::{Balancer, Candidates, PowerOfTwo};
use crate::router::Requirements;
use crate::runner::Reservation;

/// How far above the mean a runner's load may be before its keys go on to the next, as a factor.
///
/// 1.25: a quarter more than the mean is little beside how much answers differ, and leaves a fifth of the runners
/// or more below their bounds to pass requests on to.
const BOUND: f64 = 1.25;

/// The same conversation on the same runner, as long as that is not busier than the others by more than a
/// quarter.
///
/// Use it where a conversation's state is on one machine and nothing is known of prompts. Keys are placed by
/// consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, SODA 2018): when a runner comes
/// or goes only its own share moves, and a runner whose load would go beyond 1.25 times the mean passes the
/// request on along the ring, so balance always wins over a drowning favourite. The key is
/// [`Workload::session`](crate::Workload::session); requests without one go the way of
/// [`PowerOfTwo`](crate::PowerOfTwo). The answer's reason is `session`, or `overflow` when it was passed on.
///
/// Costs some tens of nanoseconds, whatever the fleet: the ring is made when the fleet changes, and the mean
/// load of sets of more than 64 runners is at most a millisecond old.
#[derive(Debug, Clone, Default)]
pub struct SessionAffinity {
    without_key: PowerOfTwo,
}

/// Prompts that begin alike on the same runner, as long as that is not busier than the others by more than a
/// quarter.
///
/// The cheap relative of [`PrefixCache`](crate::PrefixCache), without memory: the key is the hash of the
/// prompt's first blocks, as many as [`PrefixAffinity::BLOCKS`]. Use it where prompts differ after a long
/// beginning that many share, such as instructions to an agent. As [`SessionAffinity`] in everything else; the
/// reason is `prefix`.
#[derive(Debug, Clone)]
pub struct PrefixAffinity {
    blocks: usize,
    without_key: PowerOfTwo,
}

impl PrefixAffinity {
    /// Four blocks, some 512 tokens of the gateway's own blocks: longer than a chat template's head, shorter
    /// than the instructions that are worth being kept.
    pub const BLOCKS: usize = 4;

    /// With so many blocks for a key, at least 1. A prompt that has fewer is its own key.
    pub fn of_blocks(blocks: usize) -> Self {
        Self { blocks: blocks.max(1), without_key: PowerOfTwo }
    }

    fn key(&self, requirements: &Requirements) -> Option<u64> {
        let hashes = requirements.workload.prefix.hashes();
        // Each hash stands for all blocks before it, too.
        hashes.get(self.blocks - 1).or(hashes.last()).copied()
    }
}

impl Default for PrefixAffinity {
    fn default() -> Self {
        Self::of_blocks(Self::BLOCKS)
    }
}

impl Balancer for SessionAffinity {
    fn name(&self) -> &'static str {
        "session-affinity"
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let key = requirements.workload.session;
        key.and_then(|key| near(key, "session", candidates))
            .or_else(|| self.without_key.pick(requirements, candidates))
    }
}

impl Balancer for PrefixAffinity {
    fn name(&self) -> &'static str {
        "prefix-affinity"
    }

    fn reads_prompts(&self) -> bool {
        true
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let key = self.key(requirements);
        key.and_then(|key| near(key, "prefix", candidates))
            .or_else(|| self.without_key.pick(requirements, candidates))
    }
}

/// The first runner along the ring that stays within its bound.
fn near(key: u64, reason: &'static str, candidates: &Candidates<'_>) -> Option<Reservation> {
    let set = candidates.set()?;
    let most = BOUND * set.mean_share(candidates.now()).with_one_more();
    let is_within = |at: usize| {
        let bound = bound(most, candidates.slots(at));
        candidates.look(at).is_some_and(|look| look.in_flight() < bound)
    };
    let mut walk = set.ring().walk(mix(key));
    let home = walk.clone().next()?;
    // A ring has some points for each runner; each is passed at most so often.
    let found = walk.by_ref().take(MOST_STEPS).find_map(|at| {
        let reservation = if is_within(at) { candidates.try_reserve(at)? } else { return None };
        Some((at, reservation))
    });
    let (at, reservation) = match found {
        Some(found) => found,
        // The ring was walked for long enough: whoever is within its bound, and only then the better of two.
        None => {
            let within = reserve_whoever(candidates, is_within);
            let reserved = within.or_else(|| PowerOfTwo.pick(candidates.requirements(), candidates));
            return reserved.map(|reservation| reservation.because("overflow"));
        }
    };
    Some(reservation.because(if at == home { reason } else { "overflow" }))
}

/// How far a request is passed on along the ring. With a bound of 1.25 and equal runners at least a fifth of them
/// are below theirs, so that many steps in vain are rare; then each is asked whether it is within
/// its bound.
const MOST_STEPS: usize = 64;

/// How many requests of ours a runner with so many slots may have before one more would be too many: `most` of its
/// slots, the new request included, rounded up so that it is never none.
fn bound(most: f64, slots: u32) -> u32 {
    (most * f64::from(slots)).ceil() as u32
}

/// How much of the slots of a set of runners our own requests use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MeanShare {
    pub(crate) in_flight: u64,
    pub(crate) slots: u64,
}

impl MeanShare {
    fn with_one_more(self) -> f64 {
        (self.in_flight + 1) as f64 / self.slots.max(1) as f64
    }
}
