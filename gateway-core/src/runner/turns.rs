//! Who of a set has the next turn, when each has turns in proportion to its weight.
//!
//! nginx's smooth weighted round-robin adds to a counter of every server at every pick, under a lock. Here
//! the turn's number alone says whose it is. The runners hang on a tree: at each fork the turns are shared
//! between both sides as evenly as whole turns can be, the way Bresenham's line spreads its steps, and each
//! side counts its own turns on. So a pick is one atomic addition and a walk of some divisions, and any two
//! who pick at once have two different turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::board::ASSUMED_SLOTS;
use super::{Runner, RunnerSpec};

/// The largest weight.
const HEAVIEST: u32 = 1 << 16;

/// The turns of a set of runners. Never changes but for the number of the turn.
#[derive(Debug)]
pub(crate) struct Turns {
    nodes: Vec<Node>,
    /// Places in the set, those of equal weight next to one another.
    places: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
enum Node {
    Fork {
        /// Weight of the left side, and of both.
        left_weight: u64,
        weight: u64,
        right: u32,
    },
    /// Runners of equal weight, who take turns.
    Group { from: u32, len: u32 },
}

/// Runners of equal weight.
struct Group {
    weight: u64,
    from: u32,
    len: u32,
}

/// A runner's weight: its label `weight` if that is a whole number, its slots otherwise.
pub(crate) fn weight(spec: &RunnerSpec) -> u32 {
    let label = spec.labels.get("weight").and_then(|label| label.parse::<u32>().ok());
    label.or(spec.slots.map(|slots| slots.get())).unwrap_or(ASSUMED_SLOTS).min(HEAVIEST)
}

impl Turns {
    pub(crate) fn of(runners: &[Arc<Runner>]) -> Self {
        Self::with_weights(runners.iter().map(|runner| weight(runner.spec())))
    }

    fn with_weights(weights: impl Iterator<Item = u32>) -> Self {
        // A turn's number times a weight must fit into 64 bits.
        let mut weights: Vec<(u32, u32)> =
            weights.zip(0_u32..).filter(|(weight, _)| *weight > 0).take(HEAVIEST as usize).collect();
        weights.sort_unstable_by_key(|(weight, place)| (std::cmp::Reverse(*weight), *place));
        let mut groups: Vec<Group> = Vec::new();
        for ((weight, _), number) in weights.iter().zip(0_u32..) {
            match groups.last_mut() {
                Some(group) if group.weight == u64::from(*weight) => group.len += 1,
                _ => groups.push(Group { weight: u64::from(*weight), from: number, len: 1 }),
            }
        }
        for group in &mut groups {
            group.weight *= u64::from(group.len);
        }
        let mut nodes = Vec::new();
        if !groups.is_empty() {
            grow(&mut nodes, &groups);
        }
        Self { nodes, places: weights.into_iter().map(|(_, place)| place).collect() }
    }

    /// Whose turn it is: a place in the set. `None` if nobody has a weight.
    #[inline]
    pub(crate) fn whose(&self, turn: u64) -> Option<usize> {
        let mut turn = turn;
        let mut at = 0;
        loop {
            match *self.nodes.get(at)? {
                Node::Fork { left_weight, weight, right } => {
                    turn %= weight;
                    let before = share(turn, left_weight, weight);
                    if share(turn + 1, left_weight, weight) > before {
                        (turn, at) = (before, at + 1);
                    } else {
                        (turn, at) = (turn - before, right as usize);
                    }
                }
                Node::Group { from, len } => {
                    let place = from as usize + (turn % u64::from(len)) as usize;
                    return self.places.get(place).map(|place| *place as usize);
                }
            }
        }
    }
}

/// How many of the first `turns` are the left side's: its share, rounded.
#[inline]
fn share(turns: u64, left_weight: u64, weight: u64) -> u64 {
    (turns * left_weight + weight / 2) / weight
}

/// Adds the tree of some groups. The left side of a fork follows it.
fn grow(nodes: &mut Vec<Node>, groups: &[Group]) {
    if let [Group { from, len, .. }] = groups {
        nodes.push(Node::Group { from: *from, len: *len });
        return;
    }
    let weight: u64 = groups.iter().map(|group| group.weight).sum();
    // As even a fork as there is: the deeper a runner hangs, the less even are its turns.
    let mut left_weight = groups[0].weight;
    let mut split = 1;
    while split + 1 < groups.len() && 2 * left_weight + groups[split].weight <= weight {
        left_weight += groups[split].weight;
        split += 1;
    }
    let at = nodes.len();
    nodes.push(Node::Fork { left_weight, weight, right: 0 });
    grow(nodes, &groups[..split]);
    let right = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    nodes[at] = Node::Fork { left_weight, weight, right };
    grow(nodes, &groups[split..]);
}

/// The number of the next turn.
#[derive(Debug, Default)]
pub(crate) struct Tick(AtomicU64);

impl Tick {
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Clone for Tick {
    /// Goes on where this one is, so that a fleet that changes often does not always begin with the same.
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(weights: &[u32]) -> Turns {
        Turns::with_weights(weights.iter().copied())
    }

    fn first(weights: &[u32], count: u64) -> Vec<usize> {
        let turns = turns(weights);
        (0..count).map(|turn| turns.whose(turn).unwrap()).collect()
    }

    /// What nginx does (ngx_http_upstream_round_robin.c): everyone gains its weight, the richest is taken and
    /// pays for all.
    fn nginx(weights: &[u32], count: u64) -> Vec<usize> {
        let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
        let mut purse = vec![0_i64; weights.len()];
        let mut taken = Vec::new();
        for _ in 0..count {
            purse.iter_mut().zip(weights).for_each(|(purse, weight)| *purse += i64::from(*weight));
            let mut best = 0;
            for at in 1..purse.len() {
                if purse[at] > purse[best] {
                    best = at;
                }
            }
            purse[best] -= total;
            taken.push(best);
        }
        taken
    }

    /// By how much anybody's turns in any window differ from its share, at most.
    fn unevenness(weights: &[u32], sequence: &[usize]) -> f64 {
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let mut worst: f64 = 0.0;
        for (who, weight) in weights.iter().enumerate() {
            // A window is the difference of two beginnings.
            let (mut least, mut most, mut ahead): (f64, f64, f64) = (0.0, 0.0, 0.0);
            for taken in sequence {
                ahead += f64::from(u8::from(*taken == who)) - f64::from(*weight) / total;
                (least, most) = (least.min(ahead), most.max(ahead));
            }
            worst = worst.max(most - least);
        }
        worst
    }

    #[test]
    fn equals_go_round_and_the_heavy_one_is_spread() {
        assert_eq!(first(&[1, 1, 1], 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(first(&[5, 1, 1], 7), [0, 1, 0, 0, 0, 2, 0]);
        assert_eq!(first(&[0, 2], 2), [1, 1], "no weight, no turn");
        assert!(turns(&[0, 0]).whose(0).is_none() && turns(&[]).whose(0).is_none());
    }

    proptest! {
        /// A whole cycle has each exactly as often as its weight, every window nearly so.
        #[test]
        fn turns_are_in_proportion(weights in proptest::collection::vec(0..40_u32, 1..12)) {
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            prop_assume!(total > 0);
            let sequence = first(&weights, 2 * total);
            for (who, weight) in weights.iter().enumerate() {
                let count = |part: &[usize]| part.iter().filter(|taken| **taken == who).count();
                let (cycle, next) = sequence.split_at(total as usize);
                prop_assert_eq!(count(cycle), *weight as usize);
                prop_assert_eq!(count(next), *weight as usize);
            }
            // nginx stays below 1.8 here and has 1.4 on average, this is 1.5 on average and was seen at 2.5. Less
            // than 1 for everybody is not to be had: but for few sets of weights there is no such sequence.
            let ours = unevenness(&weights, &sequence);
            let theirs = unevenness(&weights, &nginx(&weights, 2 * total));
            prop_assert!(ours < theirs + 1.5 && ours < 3.0, "{ours} where nginx has {theirs}");
        }
    }
}
