//! Two counts over a sliding window of time, such as requests and the faults among them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Into how many slots of time the window is cut. What leaves the window leaves by a slot at a time, so it
/// is between nine and ten tenths of its length.
const SLOTS: u64 = 10;

const BITS: u32 = 20;
const MAX: u64 = (1 << BITS) - 1;
/// What is left of the word for the number of the slot in time. It comes round after 2^24 slots, and then only
/// a slot that was not written for all of that time is taken for new.
const ROUND: u64 = (1 << (64 - 2 * BITS)) - 1;

/// Each slot is one word: its number in time and both counts. So a slot that is reused for a later time is
/// never seen half cleared, and nobody takes a lock.
#[derive(Debug)]
pub(crate) struct Window {
    slots: [AtomicU64; SLOTS as usize],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    number: u64,
    all: u64,
    some: u64,
}

impl Slot {
    fn unpack(word: u64) -> Self {
        Self { number: word >> (2 * BITS), all: (word >> BITS) & MAX, some: word & MAX }
    }

    fn pack(self) -> u64 {
        self.number << (2 * BITS) | self.all << BITS | self.some
    }
}

/// What a [`Window`] has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) all: u64,
    pub(crate) some: u64,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self { slots: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Adds to both counts at a time. `length` is the window's, in ms, and the same in every call.
    pub(crate) fn add(&self, now: u64, length: u64, all: u64, some: u64) {
        let number = now / slot_length(length);
        let next = |word| {
            let mut slot = Slot::unpack(word);
            if slot.number != number & ROUND {
                slot = Slot { number: number & ROUND, all: 0, some: 0 };
            }
            (slot.all, slot.some) = (slot.all + all, slot.some + some);
            // Halving both keeps the share of one in the other, which is all that anybody asks for.
            while slot.all > MAX || slot.some > MAX {
                (slot.all, slot.some) = (slot.all / 2, slot.some / 2);
            }
            Some(slot.pack())
        };
        let _ = self.slot(number).fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    /// Takes one of the second count back that was added at that time, if it is still counted.
    pub(crate) fn take_back_some(&self, then: u64, length: u64) {
        let number = then / slot_length(length);
        let next = |word| {
            let slot = Slot::unpack(word);
            let counted = slot.number == number & ROUND && slot.some > 0;
            counted.then(|| Slot { some: slot.some - 1, ..slot }.pack())
        };
        let _ = self.slot(number).fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    /// What was counted in the window that ends now.
    pub(crate) fn sum(&self, now: u64, length: u64) -> Counted {
        let number = now / slot_length(length);
        let mut sum = Counted::default();
        for back in 0..SLOTS.min(number + 1) {
            let slot = Slot::unpack(self.slot(number - back).load(Ordering::Acquire));
            if slot.number == (number - back) & ROUND {
                sum.all += slot.all;
                sum.some += slot.some;
            }
        }
        sum
    }

    /// Forgets everything. What is added meanwhile may be forgotten too.
    pub(crate) fn clear(&self) {
        for slot in &self.slots {
            let next = |word| Some(Slot { all: 0, some: 0, ..Slot::unpack(word) }.pack());
            let _ = slot.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        }
    }

    fn slot(&self, number: u64) -> &AtomicU64 {
        &self.slots[(number % SLOTS) as usize]
    }
}

fn slot_length(length: u64) -> u64 {
    (length / SLOTS).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_old_is_forgotten_a_slot_at_a_time() {
        let window = Window::new();
        window.add(0, 30_000, 4, 1);
        window.add(3_000, 30_000, 6, 2);
        assert_eq!(window.sum(3_000, 30_000), Counted { all: 10, some: 3 });
        assert_eq!(window.sum(29_999, 30_000), Counted { all: 10, some: 3 });
        assert_eq!(window.sum(30_000, 30_000), Counted { all: 6, some: 2 });
        assert_eq!(window.sum(33_000, 30_000), Counted::default());
        window.add(60_000, 30_000, 1, 0);
        assert_eq!(window.sum(60_000, 30_000), Counted { all: 1, some: 0 });
        window.clear();
        assert_eq!(window.sum(60_000, 30_000), Counted::default());
    }

    #[test]
    fn only_what_is_still_counted_is_taken_back() {
        let window = Window::new();
        window.add(5, 10, 0, 1);
        window.take_back_some(15, 10);
        assert_eq!(window.sum(5, 10).some, 1, "that was another time");
        window.take_back_some(5, 10);
        window.take_back_some(5, 10);
        assert_eq!(window.sum(5, 10).some, 0);
    }

    #[test]
    fn too_many_for_a_slot_keep_their_share() {
        let window = Window::new();
        for _ in 0..100 {
            window.add(7, 1_000, MAX / 10, MAX / 40);
        }
        let Counted { all, some } = window.sum(7, 1_000);
        assert!(all > MAX / 4, "{all}");
        assert!((some as f64 / all as f64 - 0.25).abs() < 0.01, "{some} of {all}");
    }

    proptest! {
        #[test]
        fn agrees_with_a_list(adds in prop::collection::vec((0u64..40, 0u64..5, 0u64..5), 1..200)) {
            let window = Window::new();
            let mut list: Vec<(u64, u64, u64)> = Vec::new();
            let mut now = 0;
            for (step, all, some) in adds {
                now += step;
                window.add(now, 100, all, some);
                list.push((now / 10, all, some));
                let kept = list.iter().filter(|(slot, ..)| slot + SLOTS > now / 10);
                let sum = kept.fold(Counted::default(), |sum, (_, all, some)| Counted {
                    all: sum.all + all,
                    some: sum.some + some,
                });
                prop_assert_eq!(window.sum(now, 100), sum);
            }
        }
    }
}
