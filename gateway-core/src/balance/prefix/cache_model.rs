//! What is still in a runner's cache, from what was sent there.

use std::sync::atomic::{AtomicU32, Ordering};

/// A model of one runner's cache: least recently used blocks go first. It holds no blocks, only how many there are of
/// each age; blocks themselves carry a stamp, the age at which they were last used.
///
/// Exact LRU would need a list of all blocks in order. Here time is cut into epochs, each as long as it takes to use a
/// [`GRAIN`](Self::GRAIN)th of the cache, and blocks of one epoch go together. A block that is used again moves from the
/// count of its old epoch to the present one, so that what is used all the time takes room but once. (Wires and others,
/// "Characterizing Storage Workloads with Counter Stacks", OSDI 2014, measure LRU with counts per epoch in this way.)
pub(super) struct CacheModel {
    epoch: AtomicU32,
    /// The oldest epoch whose blocks are still there.
    floor: AtomicU32,
    /// Tokens last used in each of the newest epochs.
    tokens: [AtomicU32; Self::EPOCHS],
}

/// When a block was last used, in epochs of one [`CacheModel`]. Comes round after 2^23 of them.
pub(super) type Stamp = u32;

impl CacheModel {
    /// Into how many parts a cache is cut: what is known of it is right to about 1.5 %.
    const GRAIN: u32 = 64;
    /// How many epochs are told apart. Used blocks move on, so epochs become sparse and a full cache spans more than
    /// [`GRAIN`](Self::GRAIN) of them; what was not used for this long is taken for gone.
    const EPOCHS: usize = 128;
    pub(super) const STAMP_BITS: u32 = 23;
    const MASK: u32 = (1 << Self::STAMP_BITS) - 1;

    #[inline]
    pub(super) fn is_live(&self, stamp: Stamp) -> bool {
        self.age(stamp) <= self.span()
    }

    /// In [`GRAIN`](Self::GRAIN)ths of the cache. Huge if it was never used, or too long ago.
    #[inline]
    pub(super) fn age(&self, stamp: Stamp) -> u32 {
        self.epoch.load(Ordering::Relaxed).wrapping_sub(stamp) & Self::MASK
    }

    /// The stamp of a block that is not there.
    pub(super) fn dead(&self) -> Stamp {
        self.epoch.load(Ordering::Relaxed).wrapping_add(1 << (Self::STAMP_BITS - 1)) & Self::MASK
    }

    fn span(&self) -> u32 {
        self.epoch.load(Ordering::Relaxed).wrapping_sub(self.floor.load(Ordering::Relaxed))
    }

    /// A block is used: gives its new stamp. `before` is the one it had if it is still there, `size` what it takes of
    /// `capacity`.
    #[inline]
    pub(super) fn touch(&self, before: Option<Stamp>, size: u32, capacity: u32) -> Stamp {
        let now = self.epoch.load(Ordering::Relaxed);
        if let Some(before) = before {
            if before == now & Self::MASK {
                return before;
            }
            self.take(before, size);
        }
        let used = self.slot(now).fetch_add(size, Ordering::Relaxed).saturating_add(size);
        if used >= (capacity / Self::GRAIN).max(1) {
            self.advance(now, capacity);
        }
        now & Self::MASK
    }

    /// A block was never there.
    pub(super) fn forget(&self, stamp: Stamp, size: u32) {
        if self.is_live(stamp) {
            self.take(stamp, size);
        }
    }

    /// Everything is gone.
    pub(super) fn clear(&self) {
        let next = self.epoch.load(Ordering::Relaxed).wrapping_add(1);
        self.tokens.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
        self.floor.store(next, Ordering::Relaxed);
        self.epoch.store(next, Ordering::Relaxed);
    }

    fn slot(&self, epoch: u32) -> &AtomicU32 {
        &self.tokens[epoch as usize % Self::EPOCHS]
    }

    fn take(&self, stamp: Stamp, size: u32) {
        // Two who move the same block at once take it out twice; the count must not wrap for that.
        let less = |tokens: u32| Some(tokens.saturating_sub(size));
        // Stamps are whole epochs modulo a multiple of the number of slots.
        let _ = self.slot(stamp).fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    #[cold]
    fn advance(&self, now: u32, capacity: u32) {
        let next = now.wrapping_add(1);
        // What was counted there is older than anything that is kept.
        self.slot(next).store(0, Ordering::Relaxed);
        if self.epoch.compare_exchange(now, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let span = next.wrapping_sub(self.floor.load(Ordering::Relaxed)).min(Self::EPOCHS as u32 - 1);
        let mut kept = 0_u32;
        let still_there = (0..=span).take_while(|back| {
            kept = kept.saturating_add(self.slot(next.wrapping_sub(*back)).load(Ordering::Relaxed));
            kept <= capacity
        });
        let oldest = still_there.last().unwrap_or(0);
        self.floor.store(next.wrapping_sub(oldest), Ordering::Relaxed);
    }
}

impl Default for CacheModel {
    fn default() -> Self {
        // Not 0, so that no stamp of a used block is.
        let first = || AtomicU32::new(1);
        Self { epoch: first(), floor: first(), tokens: std::array::from_fn(|_| AtomicU32::new(0)) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::*;

    /// Blocks of one token under the model, and under LRU to the letter.
    struct Both {
        model: CacheModel,
        stamps: HashMap<u32, Stamp>,
        used: HashMap<u32, u64>,
        order: BTreeMap<u64, u32>,
        clock: u64,
        capacity: usize,
    }

    impl Both {
        fn new(capacity: usize) -> Self {
            let model = CacheModel::default();
            let (stamps, used, order) = Default::default();
            Self { model, stamps, used, order, clock: 0, capacity }
        }

        /// Whether it is there, in the model and in truth; and uses it.
        fn touch(&mut self, block: u32) -> (bool, bool) {
            let before = self.stamps.get(&block).copied().filter(|stamp| self.model.is_live(*stamp));
            self.stamps.insert(block, self.model.touch(before, 1, self.capacity as u32));
            self.clock += 1;
            let used = self.used.insert(block, self.clock);
            used.map(|used| self.order.remove(&used));
            self.order.insert(self.clock, block);
            if self.order.len() > self.capacity {
                let (_, oldest) = self.order.pop_first().unwrap();
                self.used.remove(&oldest);
            }
            (before.is_some(), used.is_some())
        }
    }

    #[test]
    fn close_to_lru_to_the_letter() {
        let mut both = Both::new(8_000);
        let mut random = fastrand::Rng::with_seed(7);
        let (mut hits, mut wrong, all) = (0, 0, 200_000);
        for _ in 0..all {
            // Skewed: low numbers come up far more often than high ones.
            let block = (random.f64().powi(4) * 100_000.0) as u32;
            let (model, truth) = both.touch(block);
            hits += u32::from(truth);
            wrong += u32::from(model != truth);
        }
        assert!((60_000..140_000).contains(&hits), "{hits}");
        assert!(f64::from(wrong) < 0.01 * f64::from(all), "{wrong} wrong of {all}");
    }

    #[test]
    fn what_is_used_all_the_time_takes_room_but_once() {
        let mut both = Both::new(640);
        for round in 0..20 {
            for block in 0..600 {
                let (model, truth) = both.touch(block);
                assert!(model == truth && truth == (round > 0), "{round}: {block}");
            }
        }
    }

    #[test]
    fn cleared_is_cold() {
        let model = CacheModel::default();
        let stamp = model.touch(None, 1, 100);
        assert!(model.is_live(stamp));
        model.clear();
        assert!(!model.is_live(stamp));
        assert!(model.is_live(model.touch(None, 1, 100)));
    }

    #[test]
    fn tiny_and_huge_caches_do_no_harm() {
        for capacity in [0, 1, 63, u32::MAX] {
            let model = CacheModel::default();
            for _ in 0..1_000 {
                model.touch(None, u32::MAX / 8, capacity);
                model.touch(None, 1, capacity);
            }
        }
    }
}
