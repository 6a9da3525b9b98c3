//! Which runner has seen which beginning of a prompt.

use std::sync::atomic::{AtomicU64, Ordering};

use super::cache_model::{CacheModel, Stamp};
use super::holders::Holders;
use super::numbered::Numbered;
use crate::balance::mix::mix;

/// A bounded, aged map from the blocks of prompts to the runners that were sent them.
///
/// Of fixed size, without locks, and knowledge rather than truth: two who write at once may lose an entry, and what is
/// lost costs a runner some computing, no more. It is a table of buckets of eight entries, one cache line each; an entry
/// is one word: part of the block's hash, the runner's number, and when it was last used there. Where an entry is of no
/// use any more (its runner has left, or has used so much since that its cache has let the block go, see
/// [`CacheModel`]), its place is free; without one, the entry goes that is nearest to that.
///
/// Hashes stand for a block and all before it, so a block has few holders however common its tokens are, but for the
/// beginnings that everybody shares. When a bucket has nothing but holders of one block, the next ones take more of them,
/// up to [`CHAIN`](Self::CHAIN).
pub(super) struct PrefixIndex {
    buckets: Box<[Bucket]>,
    caches: Numbered<CacheModel>,
    /// Tokens that a runner's cache holds.
    capacity: u32,
}

const WAYS: usize = 8;

#[repr(align(64))]
struct Bucket([AtomicU64; WAYS]);

/// What one word of the table says. A word of 0 is an empty place.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    /// What is left of the block's hash. With the bucket's number, 41 bits or more of it are compared.
    tag: u64,
    runner: u16,
    stamp: Stamp,
    /// Sent, but no answer has proved yet that the runner has read it.
    pending: bool,
}

impl Entry {
    const TAG_BITS: u32 = u64::BITS - u16::BITS - CacheModel::STAMP_BITS - 1;

    fn unpack(word: u64) -> Option<Self> {
        (word != 0).then_some(Self {
            tag: word >> (u64::BITS - Self::TAG_BITS),
            runner: (word >> (CacheModel::STAMP_BITS + 1)) as u16,
            stamp: (word as u32 & u32::MAX >> (32 - CacheModel::STAMP_BITS - 1)) >> 1,
            pending: word & 1 == 1,
        })
    }

    fn pack(self) -> u64 {
        self.tag << (u64::BITS - Self::TAG_BITS)
            | u64::from(self.runner) << (CacheModel::STAMP_BITS + 1)
            | u64::from(self.stamp) << 1
            | u64::from(self.pending)
    }
}

/// Where to look for a block.
#[derive(Debug, Clone, Copy)]
struct Place {
    bucket: usize,
    tag: u64,
}

/// A prompt's blocks under one model's name: another model's cache is of no use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prompt<'p> {
    pub(super) hashes: &'p [u64],
    pub(super) tokens_per_block: u32,
    pub(super) salt: u64,
}

impl PrefixIndex {
    /// How many buckets in a row the holders of one block may fill.
    const CHAIN: usize = Holders::MOST / WAYS;
    /// After so many blocks that nobody has, no more are looked for. More than one, as entries make room for others one
    /// by one.
    const GAP: u32 = 4;

    /// With room for so many entries, rounded up to a power of two, and runners whose caches hold so many tokens.
    pub(super) fn new(entries: usize, capacity: u32) -> Self {
        let buckets = entries.clamp(WAYS, 1 << 32).div_ceil(WAYS).next_power_of_two();
        let empty = || Bucket(std::array::from_fn(|_| AtomicU64::new(0)));
        Self { buckets: (0..buckets).map(|_| empty()).collect(), caches: Numbered::new(), capacity }
    }

    /// Bytes in use: 8 for each entry, and some 560 for each runner.
    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.buckets) + self.caches.memory()
    }

    /// The number stands for another runner now, whose cache is empty.
    pub(super) fn renumbered(&self, runner: u16) {
        self.caches.get(runner).clear();
    }

    fn place(&self, hash: u64, salt: u64) -> Place {
        let hash = mix(hash ^ salt);
        // The number of buckets is a power of two.
        Place { bucket: hash as usize & (self.buckets.len() - 1), tag: hash >> (u64::BITS - Entry::TAG_BITS) }
    }

    fn bucket(&self, place: Place, step: usize) -> &[AtomicU64; WAYS] {
        &self.buckets[(place.bucket + step) & (self.buckets.len() - 1)].0
    }

    /// Who has how much of it. Costs a cache line for each block that somebody has.
    pub(super) fn holders(&self, prompt: &Prompt<'_>) -> Holders {
        let mut holders = Holders::none();
        let mut missed = 0;
        for (blocks, hash) in (1..).zip(prompt.hashes) {
            let place = self.place(*hash, prompt.salt);
            missed += 1;
            for step in 0..Self::CHAIN {
                let mut alike = 0;
                for word in self.bucket(place, step) {
                    let entry = Entry::unpack(word.load(Ordering::Relaxed));
                    let Some(entry) = entry.filter(|entry| entry.tag == place.tag) else { continue };
                    alike += 1;
                    if self.caches.get(entry.runner).is_live(entry.stamp) {
                        // Whoever has a block has those before it: caches let the end of a prompt go first.
                        holders.note(entry.runner, blocks);
                        missed = 0;
                    }
                }
                if alike < WAYS {
                    break;
                }
            }
            if missed >= Self::GAP {
                break;
            }
        }
        holders
    }

    /// How many leading blocks one runner has. Whoever has a block has those before it, so a few of them tell; where
    /// entries had to make room in between, it may be less than [`PrefixIndex::holders`] says.
    pub(super) fn depth(&self, prompt: &Prompt<'_>, runner: u16) -> u32 {
        prompt.hashes.partition_point(|hash| self.has(self.place(*hash, prompt.salt), runner)) as u32
    }

    fn has(&self, place: Place, runner: u16) -> bool {
        for step in 0..Self::CHAIN {
            let mut alike = 0;
            for word in self.bucket(place, step) {
                let entry = Entry::unpack(word.load(Ordering::Relaxed));
                let Some(entry) = entry.filter(|entry| entry.tag == place.tag) else { continue };
                if entry.runner == runner {
                    return self.caches.get(runner).is_live(entry.stamp);
                }
                alike += 1;
            }
            if alike < WAYS {
                break;
            }
        }
        false
    }

    /// The runner is sent this prompt, or (no longer `pending`) has proved that it has read it.
    pub(super) fn record(&self, prompt: &Prompt<'_>, runner: u16, pending: bool) {
        // From the end, as caches let go of the end first.
        for hash in prompt.hashes.iter().rev() {
            self.record_block(self.place(*hash, prompt.salt), runner, prompt.tokens_per_block, pending);
        }
    }

    fn record_block(&self, place: Place, runner: u16, size: u32, pending: bool) {
        let cache = self.caches.get(runner);
        let mut victim: Option<(&AtomicU64, u64, u32)> = None;
        for step in 0..Self::CHAIN {
            let mut alike = 0;
            let bucket = self.bucket(place, step);
            for way in 0..WAYS {
                // From another place for every block, so that of entries of one age each goes as often.
                let slot = &bucket[(way + place.tag as usize) % WAYS];
                let word = slot.load(Ordering::Relaxed);
                let entry = Entry::unpack(word);
                if let Some(entry) = entry.filter(|entry| entry.tag == place.tag) {
                    alike += 1;
                    if entry.runner == runner {
                        let live = Some(entry.stamp).filter(|stamp| cache.is_live(*stamp));
                        let stamp = cache.touch(live, size, self.capacity);
                        // What was proved before stays so.
                        let pending = pending && (entry.pending || live.is_none());
                        self.put(slot, word, Entry { stamp, pending, ..entry });
                        return;
                    }
                }
                let age = self.uselessness(entry);
                if victim.is_none_or(|(.., oldest)| age > oldest) {
                    victim = Some((slot, word, age));
                }
            }
            if alike < WAYS {
                break;
            }
        }
        if let Some((slot, word, _)) = victim {
            let stamp = cache.touch(None, size, self.capacity);
            self.put(slot, word, Entry { tag: place.tag, runner, stamp, pending });
        }
    }

    /// How little would be lost with an entry.
    fn uselessness(&self, entry: Option<Entry>) -> u32 {
        let Some(entry) = entry else { return u32::MAX };
        let cache = self.caches.get(entry.runner);
        if cache.is_live(entry.stamp) { cache.age(entry.stamp) } else { u32::MAX - 1 }
    }

    fn put(&self, slot: &AtomicU64, before: u64, entry: Entry) {
        // Whoever was faster knows as much.
        let _ = slot.compare_exchange(before, entry.pack(), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The runner was never sent this prompt, or did not get to read it: what was recorded of it on that account is
    /// taken back. What others proved meanwhile stays.
    pub(super) fn take_back(&self, prompt: &Prompt<'_>, runner: u16) {
        for hash in prompt.hashes {
            let place = self.place(*hash, prompt.salt);
            'chain: for step in 0..Self::CHAIN {
                let mut alike = 0;
                for slot in self.bucket(place, step) {
                    let word = slot.load(Ordering::Relaxed);
                    let entry = Entry::unpack(word);
                    let Some(entry) = entry.filter(|entry| entry.tag == place.tag) else { continue };
                    alike += 1;
                    if entry.runner == runner && entry.pending {
                        let cache = self.caches.get(runner);
                        cache.forget(entry.stamp, prompt.tokens_per_block);
                        // Not emptied: other holders of the block may be behind it.
                        self.put(slot, word, Entry { stamp: cache.dead(), ..entry });
                        break 'chain;
                    }
                }
                if alike < WAYS {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proptest::prelude::*;

    use super::*;

    fn prompt(hashes: &[u64]) -> Prompt<'_> {
        Prompt { hashes, tokens_per_block: 1, salt: 0 }
    }

    fn found(index: &PrefixIndex, hashes: &[u64]) -> BTreeMap<u16, u32> {
        index.holders(&prompt(hashes)).iter().collect()
    }

    /// Prompts that share beginnings: a path in a tree, as hashes of what was walked so far.
    fn path(turns: &[u8]) -> Vec<u64> {
        let step = |hash: &mut u64, turn: &u8| {
            *hash = mix(*hash ^ u64::from(*turn));
            Some(*hash)
        };
        turns.iter().scan(1, step).collect()
    }

    #[test]
    fn one_runner_has_as_much_alone_as_among_the_others() {
        let index = PrefixIndex::new(1 << 12, 1 << 20);
        let long: Vec<u8> = (0..100).collect();
        for (runner, blocks) in [(0, 100), (1, 37), (2, 1), (3, 64)] {
            index.record(&prompt(&path(&long[..blocks])), runner, false);
        }
        let hashes = path(&long);
        let (asked, among) = (prompt(&hashes), found(&index, &hashes));
        for runner in 0..5 {
            assert_eq!(index.depth(&asked, runner), among.get(&runner).copied().unwrap_or(0), "{runner}");
        }
    }

    #[test]
    fn entries_survive_packing() {
        let most =
            Entry { tag: (1 << Entry::TAG_BITS) - 1, runner: u16::MAX, stamp: (1 << 23) - 1, pending: true };
        let least = Entry { tag: 0, runner: 0, stamp: 1, pending: false };
        for entry in [most, least, Entry { pending: false, ..most }, Entry { runner: 77, tag: 5, ..least }] {
            assert_eq!(Entry::unpack(entry.pack()), Some(entry));
        }
        assert_eq!(Entry::unpack(0), None);
    }

    #[test]
    fn holders_are_told_by_how_much_they_have() {
        let index = PrefixIndex::new(1 << 12, 10_000);
        let (long, short, other) = (path(&[1, 2, 3, 4, 5, 6]), path(&[1, 2, 3]), path(&[1, 9, 9]));
        index.record(&prompt(&long), 3, false);
        index.record(&prompt(&short), 5, true);
        index.record(&prompt(&other), 700, false);
        assert_eq!(found(&index, &long), [(3, 6), (5, 3), (700, 1)].into());
        assert_eq!(found(&index, &other), [(3, 1), (5, 1), (700, 3)].into());
        assert_eq!(found(&index, &path(&[2, 2])), [].into());
        let salted = Prompt { salt: 9, ..prompt(&long) };
        assert_eq!(index.holders(&salted).iter().count(), 0, "another model's cache is of no use");
    }

    #[test]
    fn what_was_never_sent_is_taken_back_and_what_was_read_stays() {
        let index = PrefixIndex::new(1 << 12, 10_000);
        let (before, after) = (path(&[1, 2]), path(&[1, 2, 3, 4]));
        index.record(&prompt(&before), 1, true);
        index.record(&prompt(&before), 1, false);
        index.record(&prompt(&after), 1, true);
        assert_eq!(found(&index, &after), [(1, 4)].into());
        index.take_back(&prompt(&after), 1);
        assert_eq!(found(&index, &after), [(1, 2)].into());
    }

    #[test]
    fn who_has_left_is_forgotten_and_its_number_starts_cold() {
        let index = PrefixIndex::new(1 << 12, 10_000);
        let blocks = path(&[1, 2, 3]);
        index.record(&prompt(&blocks), 1, false);
        index.record(&prompt(&blocks), 2, false);
        index.renumbered(1);
        assert_eq!(found(&index, &blocks), [(2, 3)].into());
        index.record(&prompt(&blocks[..1]), 1, false);
        assert_eq!(found(&index, &blocks), [(1, 1), (2, 3)].into());
    }

    #[test]
    fn a_runner_holds_no_more_than_its_cache() {
        let index = PrefixIndex::new(1 << 14, 1_000);
        for turn in 0..50 {
            index.record(&prompt(&path(&[turn; 100])), 1, false);
        }
        let held: u32 =
            (0..50).map(|turn| found(&index, &path(&[turn; 100])).get(&1).copied().unwrap_or(0)).sum();
        assert!((950..=1_050).contains(&held), "{held} of 1,000");
        // The latest are there to the end, the oldest are gone from the end.
        assert_eq!(found(&index, &path(&[49; 100])), [(1, 100)].into());
        assert_eq!(found(&index, &path(&[0; 100])), [].into());
    }

    #[test]
    fn what_everybody_has_is_known_of_everybody() {
        let index = PrefixIndex::new(1 << 12, 10_000);
        let common = path(&[1, 2, 3]);
        for runner in 0..Holders::MOST as u16 {
            index.record(&prompt(&common), runner, false);
        }
        assert_eq!(found(&index, &common).len(), Holders::MOST);
        // More are not told apart, and do no harm.
        for runner in 0..1_000 {
            index.record(&prompt(&common), runner, false);
        }
        assert_eq!(found(&index, &common).len(), Holders::MOST);
    }

    #[test]
    fn memory_is_what_was_asked_for() {
        let index = PrefixIndex::new(1 << 16, 1_000);
        let empty = index.memory();
        for seed in 0..20_000_u64 {
            let blocks: Vec<u64> = (0..20).map(|block| mix(seed * 20 + block)).collect();
            index.record(&prompt(&blocks), (seed % 100) as u16, seed % 2 == 0);
        }
        assert_eq!(size_of_val(&*index.buckets), 8 << 16);
        assert_eq!(size_of::<Bucket>(), 64);
        // Two steps of runners, however much was recorded.
        assert!(index.memory() - empty <= 2 * 64 * 560, "{}", index.memory() - empty);
        assert_eq!(size_of_val(&*PrefixIndex::new(1_000, 1).buckets), 8 << 10);
    }

    #[test]
    fn when_there_is_no_room_the_latest_are_known_best() {
        // 1,024 entries, 100 prompts of 40 blocks.
        let index = PrefixIndex::new(1 << 10, 100_000);
        for turn in 0..100 {
            index.record(&prompt(&path(&[turn; 40])), u16::from(turn % 4), false);
        }
        let known = |turn| found(&index, &path(&[turn; 40])).values().sum::<u32>();
        let (old, new): (u32, u32) = ((0..60).map(known).sum(), (90..100).map(known).sum());
        assert!(new > 280 && old < 300, "{old}, {new}");
    }

    #[test]
    fn many_threads_do_no_harm() {
        let index = PrefixIndex::new(1 << 8, 200);
        std::thread::scope(|scope| {
            for thread in 0..4_u16 {
                let index = &index;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(u64::from(thread));
                    for _ in 0..5_000 {
                        let turns: Vec<u8> = (0..random.usize(1..20)).map(|_| random.u8(..3)).collect();
                        let (blocks, runner) = (path(&turns), random.u16(..6));
                        match random.u8(..10) {
                            0 => index.take_back(&prompt(&blocks), runner),
                            1 => index.renumbered(runner),
                            n => index.record(&prompt(&blocks), runner, n % 2 == 0),
                        }
                        let most = blocks.len() as u32;
                        assert!(index.holders(&prompt(&blocks)).iter().all(|(n, has)| n < 6 && has <= most));
                    }
                });
            }
        });
    }

    proptest! {
        /// With room enough it knows exactly what a map of everything knows.
        #[test]
        fn agrees_with_a_map(
            ops in proptest::collection::vec((0..4_u16, proptest::collection::vec(0..3_u8, 1..10), 0..12_u8), 1..60),
        ) {
            let index = PrefixIndex::new(1 << 20, 1 << 20);
            // Block and runner, and whether it is proved.
            let mut map: HashMap<(u64, u16), bool> = HashMap::new();
            for (runner, turns, op) in ops {
                let blocks = path(&turns);
                match op {
                    0 => {
                        index.renumbered(runner);
                        map.retain(|(_, holder), _| *holder != runner);
                    }
                    1 | 2 => {
                        index.take_back(&prompt(&blocks), runner);
                        for block in &blocks {
                            if map.get(&(*block, runner)) == Some(&false) {
                                map.remove(&(*block, runner));
                            }
                        }
                    }
                    op => {
                        index.record(&prompt(&blocks), runner, op % 2 == 0);
                        for block in &blocks {
                            *map.entry((*block, runner)).or_default() |= op % 2 == 1;
                        }
                    }
                }
                let mut expected = BTreeMap::new();
                let mut missed = 0;
                for (depth, block) in (1..).zip(&blocks) {
                    missed += 1;
                    for holder in 0..4 {
                        if map.contains_key(&(*block, holder)) {
                            expected.insert(holder, depth);
                            missed = 0;
                        }
                    }
                    if missed == PrefixIndex::GAP {
                        break;
                    }
                }
                prop_assert_eq!(found(&index, &blocks), expected);
            }
        }
    }
}
