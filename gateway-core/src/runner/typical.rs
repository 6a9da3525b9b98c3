//! How fast runners are on the whole: what is assumed of one that was not measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::time::Instant;

use super::Runner;

/// The means of what was measured of some runners, geometric ones: neither the fast nor the slow outweigh the
/// others, and it is no matter whether speeds or times are taken. What was measured of none is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Typical {
    pub(crate) prefill_tokens_per_s: Option<f32>,
    pub(crate) chunk_alone_s: Option<f32>,
}

impl Typical {
    /// Looks at each of them.
    pub(crate) fn of<'r>(runners: impl Iterator<Item = &'r Arc<Runner>>, now: Instant) -> Self {
        let (mut prefill, mut chunk) = (Sum::default(), Sum::default());
        for runner in runners {
            let speed = runner.speed(now);
            prefill.add(speed.prefill_tokens_per_s);
            chunk.add(speed.chunk_alone_s);
        }
        Self { prefill_tokens_per_s: prefill.mean(), chunk_alone_s: chunk.mean() }
    }
}

#[derive(Default)]
struct Sum {
    /// Of the logarithms.
    sum: f64,
    count: u32,
}

impl Sum {
    fn add(&mut self, value: Option<f32>) {
        let Some(value) = value else { return };
        self.sum += f64::from(value).ln();
        self.count += 1;
    }

    fn mean(&self) -> Option<f32> {
        (self.count > 0).then(|| (self.sum / f64::from(self.count)).exp() as f32)
    }
}

/// The [`Typical`] of a set, reckoned anew at most once a second by whoever asks first. No lock: two means
/// of different seconds do no harm.
pub(super) struct Cached {
    made: Instant,
    /// When it was reckoned last, in ms since `made`, plus one; 0: never.
    reckoned: AtomicU64,
    /// As bits of an `f32`; 0: unknown.
    prefill: AtomicU32,
    chunk: AtomicU32,
}

impl Cached {
    /// How old the means may get. They move slowly, and a look at every runner is not for every pick.
    const MAX_AGE_MS: u64 = 1_000;

    pub(super) fn new() -> Self {
        Self {
            made: Instant::now(),
            reckoned: AtomicU64::new(0),
            prefill: AtomicU32::new(0),
            chunk: AtomicU32::new(0),
        }
    }

    #[inline]
    pub(super) fn get(&self, now: Instant, runners: &[Arc<Runner>]) -> Typical {
        let at = u64::try_from(now.saturating_duration_since(self.made).as_millis()).unwrap_or(u64::MAX - 1);
        let before = self.reckoned.load(Ordering::Relaxed);
        let is_old = before == 0 || at >= (before - 1).saturating_add(Self::MAX_AGE_MS);
        let is_mine = is_old
            && self.reckoned.compare_exchange(before, at + 1, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_mine {
            let typical = Typical::of(runners.iter(), now);
            let bits = |value: Option<f32>| value.map_or(0, f32::to_bits);
            self.prefill.store(bits(typical.prefill_tokens_per_s), Ordering::Relaxed);
            self.chunk.store(bits(typical.chunk_alone_s), Ordering::Relaxed);
            return typical;
        }
        let read = |word: &AtomicU32| match word.load(Ordering::Relaxed) {
            0 => None,
            bits => Some(f32::from_bits(bits)),
        };
        Typical { prefill_tokens_per_s: read(&self.prefill), chunk_alone_s: read(&self.chunk) }
    }
}
