//! The peak of a runner's time to first byte, which rises at once and falls slowly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::Measured;

/// The peak in seconds as `f32` bits, and above them the time at which it was set. 0: nothing was measured.
///
/// Lies on the board beside the counter of slots, so that a choice by latency reads two words per runner.
#[derive(Debug)]
pub(crate) struct Peak {
    word: AtomicU64,
}

/// A moment in ms since the board was made, without what does not fit: it comes round after 49 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(u32);

impl Moment {
    #[inline]
    pub(crate) fn of(now: Instant, since: Instant) -> Self {
        Self(now.saturating_duration_since(since).as_millis() as u32)
    }

    /// Clocks are read before a word is changed, so the earlier of two may have been written later, by less than
    /// [`Moment::EARLY`].
    #[inline]
    fn seconds_after(self, earlier: Self) -> f32 {
        let ms = self.0.wrapping_sub(earlier.0);
        if ms > u32::MAX - Self::EARLY { 0.0 } else { ms as f32 / 1000.0 }
    }

    /// A minute.
    const EARLY: u32 = 60_000;
}

impl Peak {
    pub(crate) fn new() -> Self {
        Self { word: AtomicU64::new(0) }
    }

    /// Begins anew.
    pub(crate) fn clear(&self) {
        self.word.store(0, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, first_byte: Duration, at: Moment) {
        let first_byte = first_byte.as_secs_f32();
        let _ = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let old = decayed(word, at);
            // Finagle's rule: up at once, down with time only.
            let weight = (-at.seconds_after(set(word)) / Measured::DECAY.as_secs_f32()).exp();
            let next = if first_byte > old { first_byte } else { old * weight + first_byte * (1.0 - weight) };
            // Nothing measured is exactly 0, so that 0 can stand for "nothing".
            let next = next.max(f32::MIN_POSITIVE);
            Some(u64::from(at.0) << 32 | u64::from(next.to_bits()))
        });
    }

    /// The peak in seconds as it is at a moment, or `None` if nothing was measured for so long that nothing is left
    /// of it ([`Peak::FORGOTTEN`]): silence is no speed.
    #[inline]
    pub(crate) fn get(&self, at: Moment) -> Option<f32> {
        let word = self.word.load(Ordering::Relaxed);
        let is_known = word != 0 && at.seconds_after(set(word)) < Self::FORGOTTEN.as_secs_f32();
        is_known.then(|| decayed(word, at))
    }

    /// Five times the decay: less than a hundredth of the peak is left.
    const FORGOTTEN: Duration = Measured::DECAY.saturating_mul(5);

    /// How long ago the last measurement was, in seconds; 0 if there is none.
    #[inline]
    pub(crate) fn age_s(&self, at: Moment) -> f32 {
        match self.word.load(Ordering::Relaxed) {
            0 => 0.0,
            word => at.seconds_after(set(word)),
        }
    }
}

fn set(word: u64) -> Moment {
    Moment((word >> 32) as u32)
}

fn decayed(word: u64, at: Moment) -> f32 {
    let value = f32::from_bits(word as u32);
    value * (-at.seconds_after(set(word)) / Measured::DECAY.as_secs_f32()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_at_once_and_falls_slowly() {
        // The clock comes round in between.
        let (at, later) = (Moment(u32::MAX - 5_000), Moment(4_999));
        let peak = Peak::new();
        assert_eq!((peak.get(at), peak.age_s(at)), (None, 0.0));
        peak.add(Duration::from_millis(500), at);
        peak.add(Duration::from_secs(2), at);
        peak.add(Duration::from_millis(500), at);
        assert_eq!(peak.get(at), Some(2.0));
        assert_eq!(peak.get(Moment(at.0 - 1)), Some(2.0), "a clock that was read before");
        let fallen = peak.get(later).unwrap();
        assert!((fallen - 2.0 / std::f32::consts::E).abs() < 1e-3, "{fallen}");
        assert_eq!(peak.age_s(later), 10.0);
        assert_eq!(peak.get(Moment(later.0 + 40_000)), None, "nothing is left of it");
        assert_eq!(peak.get(Moment(later.0.wrapping_add(u32::MAX / 2 + 1))), None);
        peak.clear();
        peak.add(Duration::ZERO, later);
        assert!(peak.get(later).is_some(), "no time at all is a measurement");
    }
}
