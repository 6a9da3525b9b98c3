use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::ms;

/// How long other runners are preferred to one that cannot be reached, or that asked for a pause.
///
/// A hold is softer than an open breaker: it says nothing of the runner's health, and when nobody else can
/// serve a request, the runner is tried nevertheless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldPolicy {
    /// After so many tries in a row that did not reach it; at least 1.
    pub after: u8,
    /// How long the first time. It doubles each time that the runner still cannot be reached. Also for how long a
    /// runner is left alone that answers 429 or 503 and does not say for how long.
    pub shortest: Duration,
    /// The longest.
    pub longest: Duration,
    /// The most that is taken from a runner's own `Retry-After`; zero: 429 and 503 make no hold.
    pub longest_asked: Duration,
}

impl HoldPolicy {
    /// All of the defaults.
    pub const DEFAULT: Self = Self {
        after: Self::AFTER,
        shortest: Self::SHORTEST,
        longest: Self::LONGEST,
        longest_asked: Self::LONGEST_ASKED,
    };
    /// Three: one or two are connections that the pool had not yet seen closing.
    pub const AFTER: u8 = 3;
    /// Half a second: a process that restarts is back about then.
    pub const SHORTEST: Duration = Duration::from_millis(500);
    /// 15 s: a try that cannot connect costs at most its connect timeout, so there is no need to wait for as
    /// long as a breaker does.
    pub const LONGEST: Duration = Duration::from_secs(15);
    /// 30 s: a runner may ask for a minute, but by then its queue has been empty for long.
    pub const LONGEST_ASKED: Duration = Duration::from_secs(30);
}

impl Default for HoldPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why a runner is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeldFor {
    /// It could not be reached, several times in a row.
    Unreachable,
    /// It answered 429 or 503: for as long as its `Retry-After` asks for, or else briefly.
    RetryAfter,
}

/// What is known of one registration. Times are ms on its clock.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// Packed: tries in a row that did not reach it, holds in a row, and until when. 0: it was reached.
    unreached: AtomicU64,
    /// Until when it asked to be left alone.
    asked: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unreached {
    row: u8,
    holds: u8,
    until: u64,
}

impl Unreached {
    fn unpack(word: u64) -> Self {
        Self { row: word as u8, holds: (word >> 8) as u8, until: word >> 16 }
    }

    fn pack(self) -> u64 {
        u64::from(self.row) | u64::from(self.holds) << 8 | self.until << 16
    }
}

impl Hold {
    /// A try did not reach it. Returns whether that made a hold.
    pub(super) fn unreached(&self, now: u64, policy: &HoldPolicy) -> bool {
        let mut made = false;
        let next = |word| {
            let mut known = Unreached::unpack(word);
            made = false;
            known.row = known.row.saturating_add(1);
            // Many tries may have been under way when the runner went: they are one piece of news, so the
            // time does not grow while a hold lasts.
            if known.row >= policy.after.max(1) && now >= known.until {
                let time = policy.shortest.saturating_mul(2u32.saturating_pow(u32::from(known.holds)));
                known.until = now.saturating_add(ms(time.min(policy.longest))).min(u64::MAX >> 16);
                known.holds = known.holds.saturating_add(1);
                made = true;
            }
            Some(known.pack())
        };
        let _ = self.unreached.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        made
    }

    /// It was reached: whatever it answered, it is there.
    pub(super) fn reached(&self) {
        if self.unreached.load(Ordering::Relaxed) != 0 {
            self.unreached.store(0, Ordering::Release);
        }
    }

    /// It asked to be left alone for so long.
    pub(super) fn asked(&self, time: Duration, now: u64, policy: &HoldPolicy) {
        let time = ms(time.min(policy.longest_asked));
        if time > 0 {
            self.asked.fetch_max(now.saturating_add(time), Ordering::AcqRel);
        }
    }

    /// Until when it is held back, and why, if it is.
    pub(super) fn look(&self, now: u64) -> Option<(u64, HeldFor)> {
        let unreached = Unreached::unpack(self.unreached.load(Ordering::Acquire)).until;
        let asked = self.asked.load(Ordering::Acquire);
        let (until, why) =
            if unreached >= asked { (unreached, HeldFor::Unreachable) } else { (asked, HeldFor::RetryAfter) };
        (now < until).then_some((until, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn holds_grow_while_it_cannot_be_reached() {
        let (hold, policy) = (Hold::default(), HoldPolicy::default());
        assert!(!hold.unreached(1_000, &policy) && !hold.unreached(1_000, &policy));
        assert_eq!(hold.look(1_000), None, "twice is no news yet");
        assert!(hold.unreached(1_000, &policy));
        assert_eq!(hold.look(1_499), Some((1_500, HeldFor::Unreachable)));
        assert_eq!(hold.look(1_500), None);
        let mut now = 1_500;
        let mut times = Vec::new();
        for _ in 0..7 {
            assert!(hold.unreached(now, &policy));
            let (until, _) = hold.look(now).unwrap();
            times.push(until - now);
            now = until;
        }
        assert_eq!(times, [1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]);
    }

    #[test]
    fn tries_that_were_under_way_are_one_piece_of_news() {
        let (hold, policy) = (Hold::default(), HoldPolicy::default());
        (0..50).for_each(|_| _ = hold.unreached(0, &policy));
        assert_eq!(hold.look(0), Some((500, HeldFor::Unreachable)));
    }

    #[test]
    fn being_reached_ends_it() {
        let (hold, policy) = (Hold::default(), HoldPolicy::default());
        (0..3).for_each(|_| _ = hold.unreached(0, &policy));
        hold.reached();
        assert_eq!(hold.look(0), None);
        (0..2).for_each(|_| _ = hold.unreached(600, &policy));
        assert_eq!(hold.look(600), None, "counted anew");
    }

    #[test]
    fn a_runner_is_left_alone_for_as_long_as_it_asks_within_reason() {
        let (hold, policy) = (Hold::default(), HoldPolicy::default());
        hold.asked(SECOND * 7, 0, &policy);
        hold.asked(SECOND, 0, &policy);
        assert_eq!(hold.look(6_999), Some((7_000, HeldFor::RetryAfter)));
        hold.reached();
        assert_eq!(hold.look(6_999), Some((7_000, HeldFor::RetryAfter)), "it is there, and busy");
        assert_eq!(hold.look(7_000), None);
        hold.asked(SECOND * 3_600, 10_000, &policy);
        assert_eq!(hold.look(10_000), Some((40_000, HeldFor::RetryAfter)));
        let deaf = HoldPolicy { longest_asked: Duration::ZERO, ..policy };
        let hold = Hold::default();
        hold.asked(SECOND, 0, &deaf);
        assert_eq!(hold.look(0), None);
    }
}
