//! A 64-bit hash that is the same in every process and every version.
//!
//! Several gateways in front of the same runners have to find the same hashes for the same prompt, so the
//! standard library's hasher will not do (its algorithm may change), nor will crates that reserve the right to
//! change theirs. This is the step of wyhash: multiply two words to 128 bits, fold the halves. About ten bytes
//! per nanosecond.
//!
//! Not for secrets: whoever knows the constants can find two texts with one hash. What that buys is a wrong
//! guess at which runner has a prompt in its cache, and that costs time, nothing else.

/// Fractional digits of pi, as wyhash and its kin use: nothing about them was chosen.
const KEYS: [u64; 5] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
];

/// The hash of `bytes` after whatever `seed` stands for.
pub(super) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    // Two lanes, so that the multiplications of one need not wait for those of the other.
    let mut lanes = (seed ^ KEYS[0], seed ^ KEYS[1]);
    let mut take = |chunk: &[u8; 32]| {
        let (words, _) = chunk.as_chunks::<8>();
        let [a, b, c, d] =
            std::array::from_fn(|at| words.get(at).map_or(0, |word| u64::from_le_bytes(*word)));
        lanes = (fold(a ^ KEYS[2], b ^ lanes.0), fold(c ^ KEYS[3], d ^ lanes.1));
    };
    let (chunks, rest) = bytes.as_chunks::<32>();
    chunks.iter().for_each(&mut take);
    if !rest.is_empty() {
        let mut last = [0; 32];
        last[..rest.len()].copy_from_slice(rest);
        take(&last);
    }
    // The length tells zeros at the end from nothing. The seed comes in again, because a lane whose first
    // factor happens to be zero has forgotten everything before.
    let both = fold(lanes.0 ^ seed, lanes.1 ^ KEYS[4]);
    fold(both ^ bytes.len() as u64, KEYS[4] ^ seed.rotate_left(32))
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn it_never_changes() {
        // Gateways of several versions stand in front of the same runners while they are updated.
        assert_eq!(hash(0, b""), 0xb792_2447_e5af_0d63);
        assert_eq!(hash(0, b"a"), 0xe220_7323_c20e_65b2);
        assert_eq!(hash(7, b"The quick brown fox jumps over the lazy dog"), 0x7a80_9c62_bc77_0fc1);
    }

    #[test]
    fn no_two_of_many_similar_texts_are_alike() {
        let mut seen = HashSet::new();
        for length in 0..200 {
            assert!(seen.insert(hash(1, &vec![0; length])), "{length} zeros");
            assert!(seen.insert(hash(1, &vec![0xff; length + 1])), "{length} ones");
        }
        for number in 1_u32..100_000 {
            assert!(seen.insert(hash(1, &number.to_le_bytes())), "{number}");
            assert!(seen.insert(hash(u64::from(number) << 9, b"same")), "seed {number}");
        }
    }

    #[test]
    fn a_bit_of_text_or_seed_changes_half_the_hash() {
        let text = [0x5a_u8; 96];
        let plain = hash(3, &text);
        let mut changed = Vec::new();
        for bit in 0..text.len() * 8 {
            let mut other = text;
            other[bit / 8] ^= 1 << (bit % 8);
            changed.push((hash(3, &other) ^ plain).count_ones());
        }
        changed.extend((0..64).map(|bit| (hash(3 ^ (1 << bit), &text) ^ plain).count_ones()));
        let mean = f64::from(changed.iter().sum::<u32>()) / changed.len() as f64;
        assert!((31.0..33.0).contains(&mean), "{mean}");
        // The chance of fewer for one of 832 is below one in a million.
        assert!(changed.iter().all(|bits| *bits >= 10), "{changed:?}");
    }
}
