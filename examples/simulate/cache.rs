//! A runner's memory for keys and values: whole blocks, kept after use for whoever has the same prefix.

use std::collections::{BTreeMap, HashMap};

/// Blocks of one runner. A block is *private* (held for tokens that are not computed yet), *pinned* (cached and in
/// use by at least one sequence), *idle* (cached, and first to go when room is needed), or free.
pub(crate) struct BlockCache {
    capacity: usize,
    private: usize,
    cached: HashMap<u64, Block>,
    /// Idle blocks, least recently used first.
    idle: BTreeMap<u64, u64>,
    clock: u64,
}

#[derive(Default)]
struct Block {
    pins: u32,
    /// Its key in `idle` while nobody pins it; 0 if nobody has pinned it yet.
    stamp: u64,
}

impl BlockCache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, private: 0, cached: HashMap::new(), idle: BTreeMap::new(), clock: 0 }
    }

    /// How many leading blocks are cached.
    pub(crate) fn prefix(&self, hashes: &[u64]) -> usize {
        hashes.iter().take_while(|hash| self.cached.contains_key(hash)).count()
    }

    /// Pins the cached prefix and sets `extra` blocks aside besides the rest of `hashes`. Gives the number of cached
    /// blocks, or `None`, with nothing changed but what was evicted, when there is no room even so.
    pub(crate) fn admit(&mut self, hashes: &[u64], extra: usize) -> Option<usize> {
        let hits = self.prefix(hashes);
        for hash in &hashes[..hits] {
            self.pin(*hash);
        }
        let wanted = hashes.len() - hits + extra;
        if self.make_room(wanted) {
            self.private += wanted;
            return Some(hits);
        }
        self.unpin(&hashes[..hits]);
        None
    }

    /// A private block has been computed: others can use it from now on. Where another sequence has computed the same
    /// block meanwhile, that one is shared and ours is free.
    pub(crate) fn publish(&mut self, hash: u64) {
        self.private -= 1;
        self.cached.entry(hash).or_default();
        self.pin(hash);
    }

    /// A sequence has ended: `used` are its pinned blocks, `private` what it had set aside besides.
    pub(crate) fn release(&mut self, used: &[u64], private: usize) {
        self.private -= private;
        self.unpin(used);
    }

    /// Blocks that are in use.
    pub(crate) fn in_use(&self) -> usize {
        self.cached.len() - self.idle.len() + self.private
    }

    fn pin(&mut self, hash: u64) {
        let Some(block) = self.cached.get_mut(&hash) else { return };
        if block.pins == 0 {
            self.idle.remove(&block.stamp);
        }
        block.pins += 1;
    }

    /// From the tail, so that the end of a prompt goes before the beginning on which it builds.
    fn unpin(&mut self, hashes: &[u64]) {
        for hash in hashes.iter().rev() {
            let Some(block) = self.cached.get_mut(hash) else { continue };
            block.pins -= 1;
            if block.pins == 0 {
                self.clock += 1;
                block.stamp = self.clock;
                self.idle.insert(self.clock, *hash);
            }
        }
    }

    fn make_room(&mut self, wanted: usize) -> bool {
        if self.in_use() + wanted > self.capacity {
            return false;
        }
        while self.cached.len() + self.private + wanted > self.capacity {
            let Some((_, hash)) = self.idle.pop_first() else { return false };
            self.cached.remove(&hash);
        }
        true
    }
}
