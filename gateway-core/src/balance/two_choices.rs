//! Two candidates drawn at random, and the better of them.

use super::Candidates;
use crate::runner::Reservation;

/// How often two are drawn before every candidate is looked at. With nine in ten runners full, that is needed
/// for one pick in five (0.9^16); with half of them full, for one in 65,000.
const DRAWS: u32 = 8;

/// Reserves the one with the smaller key of two drawn at random, either if the keys are equal. Those without a
/// key are passed over. `None` if a few draws do not do: then all must be looked at.
///
/// Two different ones are drawn, each pair with the same chance, so nobody gains by who stands beside him.
#[inline]
pub(super) fn reserve_better<K: PartialOrd>(
    candidates: &Candidates<'_>,
    key: impl Fn(usize) -> Option<K>,
) -> Option<Reservation> {
    let places = candidates.len();
    if places == 0 {
        return None;
    }
    for _ in 0..DRAWS {
        let (a, b) = draw_two(places);
        let (first, second) = match (key(a), key(b)) {
            // As drawn if they are equal: that is chance already.
            (Some(of_a), Some(of_b)) => {
                if of_b < of_a {
                    (b, Some(a))
                } else {
                    (a, Some(b))
                }
            }
            (Some(_), None) => (a, None),
            (None, Some(_)) => (b, None),
            (None, None) => continue,
        };
        let reserved = candidates.try_reserve(first);
        let reserved = reserved.or_else(|| candidates.try_reserve(second.filter(|second| *second != first)?));
        if reserved.is_some() {
            return reserved;
        }
    }
    None
}

/// Two different places in random order; the same one twice if there is but one.
#[inline]
fn draw_two(places: usize) -> (usize, usize) {
    let a = fastrand::usize(..places);
    if places == 1 {
        return (a, a);
    }
    let b = fastrand::usize(..places - 1);
    (a, if b >= a { b + 1 } else { b })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ordered_pair_is_drawn_as_often() {
        let mut counts = [[0_u32; 4]; 4];
        for _ in 0..12_000 {
            let (a, b) = draw_two(4);
            counts[a][b] += 1;
        }
        for (a, row) in counts.iter().enumerate() {
            for (b, count) in row.iter().enumerate() {
                // 1,000 each, give or take six standard deviations (31 each).
                let expected = if a == b { 0..=0 } else { 814..=1_186 };
                assert!(expected.contains(count), "{counts:?}");
            }
        }
        assert_eq!(draw_two(1), (0, 0));
    }
}
