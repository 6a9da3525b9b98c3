//! A ring for consistent hashing.

use super::mix::{GOLDEN, fnv1a, mix};

/// Runners on a ring of 64-bit hashes. A key belongs to the runner whose point follows it; when a runner comes or
/// goes, only the keys next to its own points change hands (Karger and others, "Consistent Hashing and Random
/// Trees", 1997). Never changes once made.
///
/// Points are sorted, with a table of where each of as many equal parts of the ring begins. Hashes are spread
/// evenly, so the point that follows a key is found in two or three reads however many there are.
#[derive(Debug)]
pub(crate) struct Ring {
    hashes: Box<[u64]>,
    /// The place of each point's runner among those that the ring was made of.
    owners: Box<[u32]>,
    /// `starts[p]` is the first point of part `p`; one more at the end.
    starts: Box<[u32]>,
    /// A hash belongs to part `hash >> shift`.
    shift: u32,
}

impl Ring {
    /// Points of a runner of mean weight. The share of keys varies between runners by about 1/√points: 12 %.
    const POINTS: u32 = 64;
    /// As many points are aimed at in all, some 2.5 MB; runners have fewer points where there are many of them.
    /// Halved each time rather than little by little, so that a fleet which grows by one keeps the points it has.
    const MOST: usize = 160_000;
    /// No runner has fewer points or, however large it is, more.
    const PER_RUNNER: (u32, u32) = (4, 512);

    /// A ring of runners by id and weight, in this order. Where all weights are equal a runner's points depend on
    /// nothing but its id.
    pub(crate) fn new<'r>(runners: impl ExactSizeIterator<Item = (&'r str, u32)> + Clone) -> Self {
        let all: u64 = runners.clone().map(|(_, weight)| u64::from(weight)).sum();
        let points = Self::points(runners.len());
        let count = runners.len() as u64;
        let points_of = |weight: u32| {
            let (least, most) = Self::PER_RUNNER;
            let share = u64::from(weight) * count * u64::from(points) + all / 2;
            u32::try_from(share / all.max(1)).unwrap_or(most).clamp(least, most)
        };
        let total: usize = runners.clone().map(|(_, weight)| points_of(weight) as usize).sum();
        let bits = total.next_power_of_two().trailing_zeros().clamp(1, 31);
        let shift = u64::BITS - bits;

        // Sorted by part at once, and within the parts, which have a point or two each, afterwards.
        let mut starts = vec![0_u32; (1 << bits) + 1];
        let each = |mut visit: Box<dyn FnMut(u64, u32) + '_>| {
            for (at, (id, weight)) in (0_u32..).zip(runners.clone()) {
                let mut seed = fnv1a(id.as_bytes());
                for _ in 0..points_of(weight) {
                    visit(mix(seed), at);
                    seed = seed.wrapping_add(GOLDEN);
                }
            }
        };
        each(Box::new(|hash, _| starts[(hash >> shift) as usize + 1] += 1));
        for part in 1..starts.len() {
            starts[part] += starts[part - 1];
        }
        let mut next = starts.clone();
        let mut sorted = vec![(0_u64, 0_u32); total];
        each(Box::new(|hash, at| {
            let next = &mut next[(hash >> shift) as usize];
            sorted[*next as usize] = (hash, at);
            *next += 1;
        }));
        for part in starts.windows(2) {
            sorted[part[0] as usize..part[1] as usize].sort_unstable();
        }
        let (hashes, owners): (Vec<_>, Vec<_>) = sorted.into_iter().unzip();
        Self { hashes: hashes.into(), owners: owners.into(), starts: starts.into(), shift }
    }

    fn points(runners: usize) -> u32 {
        let mut points = Self::POINTS;
        while points > Self::PER_RUNNER.0 && runners * points as usize > Self::MOST {
            points /= 2;
        }
        points
    }

    /// Places of runners in the order of the ring, from the owner of `hash` on, once around. A runner comes up once
    /// for each of its points, but never twice in a row.
    #[inline]
    pub(crate) fn walk(&self, hash: u64) -> Walk<'_> {
        let part = (hash >> self.shift) as usize;
        let mut at = self.starts[part] as usize;
        while self.hashes.get(at).is_some_and(|point| *point < hash) {
            at += 1;
        }
        Walk { ring: self, at, left: self.owners.len(), last: None }
    }
}

/// See [`Ring::walk`].
#[derive(Debug, Clone)]
pub(crate) struct Walk<'r> {
    ring: &'r Ring,
    at: usize,
    left: usize,
    last: Option<u32>,
}

impl Iterator for Walk<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        while self.left > 0 {
            self.left -= 1;
            if self.at >= self.ring.owners.len() {
                self.at = 0;
            }
            let owner = self.ring.owners[self.at];
            self.at += 1;
            if self.last != Some(owner) {
                self.last = Some(owner);
                return Some(owner as usize);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn ids(runners: usize) -> Vec<String> {
        (0..runners).map(|number| format!("runner-{number}")).collect()
    }

    fn ring(ids: &[String]) -> Ring {
        Ring::new(ids.iter().map(|id| (id.as_str(), 8)))
    }

    fn owner(ring: &Ring, key: u64) -> Option<usize> {
        ring.walk(mix(key)).next()
    }

    #[test]
    fn where_a_key_lives_is_the_same_in_every_build() {
        let ids = ids(10);
        let owners: Vec<_> = (0..12).filter_map(|key| owner(&ring(&ids), key)).collect();
        assert_eq!(owners, OWNERS);
    }
    const OWNERS: [usize; 12] = [6, 8, 8, 3, 9, 1, 6, 9, 1, 2, 3, 6];

    #[test]
    fn shares_are_even() {
        for (runners, spread) in [(10, 1.45), (1_000, 1.7), (3_000, 2.1)] {
            let ids = ids(runners);
            let ring = ring(&ids);
            let mut shares = vec![0_u32; runners];
            let keys = runners as u64 * 400;
            (0..keys).for_each(|key| shares[owner(&ring, key).unwrap()] += 1);
            let most = f64::from(*shares.iter().max().unwrap()) / 400.0;
            assert!(most < spread, "{runners}: {most}");
            assert!(shares.iter().all(|share| *share > 100), "{runners}");
        }
    }

    #[test]
    fn weights_are_shares() {
        let ids = ids(20);
        let weight = |at: usize| if at < 10 { 32 } else { 8 };
        let ring = Ring::new(ids.iter().enumerate().map(|(at, id)| (id.as_str(), weight(at))));
        let large = (0..100_000).filter(|key| owner(&ring, *key).unwrap() < 10).count();
        assert!((75_000..85_000).contains(&large), "{large}");
    }

    #[test]
    fn a_runner_that_joins_or_leaves_moves_its_own_keys_only() {
        for runners in [5, 100, 2_000] {
            let (with, without) = (ids(runners + 1), ids(runners));
            let (large, small) = (ring(&with), ring(&without));
            let keys = 50_000;
            let moved = (0..keys).filter(|key| {
                let (now, before) = (owner(&large, *key).unwrap(), owner(&small, *key).unwrap());
                assert!(now == before || now == runners, "only the newcomer takes keys");
                now != before
            });
            let share = moved.count() as f64 / keys as f64 * (runners + 1) as f64;
            assert!((0.3..1.9).contains(&share), "{runners}: {share} of a fair share");
        }
    }

    #[test]
    fn never_more_points_than_said_and_a_lookup_is_a_few_reads() {
        for runners in [10_000, 40_000] {
            let ids = ids(runners);
            let ring = ring(&ids);
            assert!(ring.hashes.len() <= Ring::MOST, "{}", ring.hashes.len());
            let longest = ring.starts.windows(2).map(|part| part[1] - part[0]).max().unwrap();
            assert!(longest < 16, "{longest}");
        }
    }

    #[test]
    fn an_empty_ring_has_nobody() {
        assert_eq!(ring(&[]).walk(7).next(), None);
    }

    proptest! {
        #[test]
        fn a_walk_is_the_sorted_points_from_the_key_on(
            runners in 1..40_usize, weights in proptest::collection::vec(0..200_u32, 40), key: u64,
        ) {
            let ids = ids(runners);
            let ring = Ring::new(ids.iter().zip(weights).map(|(id, weight)| (id.as_str(), weight)));
            prop_assert!(ring.hashes.is_sorted());
            let from = ring.hashes.partition_point(|point| *point < key);
            let points = ring.owners.len();
            let mut expected: Vec<usize> =
                (0..points).map(|step| ring.owners[(from + step) % points] as usize).collect();
            expected.dedup();
            let walked: Vec<usize> = ring.walk(key).collect();
            prop_assert_eq!(&walked, &expected);
            let seen: BTreeSet<usize> = walked.into_iter().collect();
            prop_assert_eq!(seen.len(), runners, "everybody comes up");
        }
    }
}
