//! What a runner has yet to read, and how fast it reads.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Milliseconds since the strategy was made. Comes round after 49 days, and then one estimate is off once.
pub(super) type Millis = u32;

/// Seconds from one moment to another. Clocks are read before anything is written, so the earlier may have been
/// written later: then none.
fn seconds(from: Millis, to: Millis) -> f32 {
    (to.wrapping_sub(from) as i32).max(0) as f32 * 1e-3
}

/// How many prompt tokens a runner has yet to read, between the moments at which that is known.
///
/// What is counted of a runner falls when an answer begins, by all of its prompt at once; yet the prompt was read little
/// by little before. A prompt of 100,000 tokens that is all but read looks like 12 s of waiting until it is done. So what
/// was outstanding at the last pick is let run off at the runner's pace, within the bounds of what is certain: not more
/// than what is counted, and not less than that without the one prompt that is being read, prompts being read in the
/// order of their arrival. A runner that has stopped reading thus never looks idle.
pub(super) struct Backlog {
    /// Tokens in the upper half, and when that was in the lower.
    last: AtomicU64,
    /// Tokens ever sent, wrapping.
    sent: AtomicU32,
    /// What `sent` was after each of the last prompts.
    marks: [AtomicU32; Self::MARKS],
    next: AtomicU32,
}

impl Backlog {
    /// Prompts whose sizes are remembered. With more of them outstanding the lower bound is not known.
    const MARKS: usize = 32;

    /// Tokens yet to read, of `counted` ones.
    #[inline]
    pub(super) fn tokens(&self, counted: u64, pace: f32, now: Millis) -> f32 {
        if counted == 0 {
            return 0.0;
        }
        let last = self.last.load(Ordering::Relaxed);
        let ran_off = seconds(last as u32, now) * pace;
        let most = counted as f32;
        let least = most - self.being_read(counted) as f32;
        ((last >> 32) as f32 - ran_off).clamp(least.max(0.0), most)
    }

    /// A prompt is sent, behind so many tokens.
    pub(super) fn add(&self, ahead: f32, tokens: u32, now: Millis) {
        let sent = self.sent.fetch_add(tokens, Ordering::Relaxed).wrapping_add(tokens);
        let at = self.next.fetch_add(1, Ordering::Relaxed) as usize % Self::MARKS;
        self.marks[at].store(sent, Ordering::Relaxed);
        let all = (ahead as u32).saturating_add(tokens);
        self.last.store(u64::from(all) << 32 | u64::from(now), Ordering::Relaxed);
    }

    /// What is counted of the prompt that is being read.
    fn being_read(&self, counted: u64) -> u64 {
        let sent = self.sent.load(Ordering::Relaxed);
        let next = self.next.load(Ordering::Relaxed) as usize;
        let outstanding = |mark: &AtomicU32| u64::from(sent.wrapping_sub(mark.load(Ordering::Relaxed)));
        // From the newest: the first mark that is no longer outstanding is where the prompt begins.
        let mut after = 0;
        for back in 1..=Self::MARKS {
            let left = outstanding(&self.marks[next.wrapping_sub(back) % Self::MARKS]);
            if left >= counted {
                return counted - after.min(counted);
            }
            after = left;
        }
        counted
    }

    pub(super) fn clear(&self) {
        let sent = self.sent.load(Ordering::Relaxed);
        self.marks.iter().for_each(|mark| mark.store(sent, Ordering::Relaxed));
        self.last.store(0, Ordering::Relaxed);
    }
}

impl Default for Backlog {
    fn default() -> Self {
        Self {
            last: AtomicU64::new(0),
            sent: AtomicU32::new(0),
            marks: std::array::from_fn(|_| AtomicU32::new(0)),
            next: AtomicU32::new(0),
        }
    }
}

/// How many prompt tokens per second are read, from how long answers took to begin.
///
/// Tokens and seconds are summed up apart, so that short prompts, most of whose time is waiting for the batch under way,
/// do not count for more than they are. Both fade with time: a runner of which nothing was heard for long is taken for
/// one like any other, and tried again.
#[derive(Default)]
pub(super) struct Pace {
    /// Tokens and seconds as `f32` bits.
    sums: AtomicU64,
    at: AtomicU32,
}

impl Pace {
    /// In how long a measurement loses about two thirds of its weight: long enough for a dozen answers of a runner with
    /// one a few seconds, short enough to find out within some minutes that a runner has recovered.
    const FADES_IN_S: f32 = 60.0;
    /// Seconds of reading against which a runner's own measurements count as much as what is known of its peers. A
    /// minute: most of what is measured in seconds is who else was there, and what a slow runner has not read is counted
    /// whatever its pace is taken to be.
    const PRIOR_S: f32 = 60.0;

    pub(super) fn add(&self, tokens: f32, seconds: f32, now: Millis) {
        if !(tokens > 0.0 && seconds > 0.0) {
            return;
        }
        let keep = self.kept(now);
        let next = |sums| {
            let (all_tokens, all_seconds) = unpack(sums);
            Some(pack(all_tokens * keep + tokens, all_seconds * keep + seconds))
        };
        let _ = self.sums.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        self.at.store(now, Ordering::Relaxed);
    }

    /// Tokens per second, leaning on `peers` as far as little is known.
    #[inline]
    pub(super) fn tokens_per_s(&self, peers: f32, now: Millis) -> f32 {
        let sums = self.sums.load(Ordering::Relaxed);
        if sums == 0 {
            return peers;
        }
        let (tokens, seconds) = unpack(sums);
        let keep = self.kept(now);
        (tokens * keep + peers * Self::PRIOR_S) / (seconds * keep + Self::PRIOR_S)
    }

    pub(super) fn clear(&self) {
        self.sums.store(0, Ordering::Relaxed);
    }

    fn kept(&self, now: Millis) -> f32 {
        // As e^-t for the short times between measurements, but without the cost, and with a longer memory.
        let silent = seconds(self.at.load(Ordering::Relaxed), now);
        1.0 / (1.0 + silent / Self::FADES_IN_S)
    }
}

fn pack(tokens: f32, seconds: f32) -> u64 {
    u64::from(tokens.to_bits()) << 32 | u64::from(seconds.to_bits())
}

fn unpack(sums: u64) -> (f32, f32) {
    (f32::from_bits((sums >> 32) as u32), f32::from_bits(sums as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_runs_off_while_it_is_read() {
        let backlog = Backlog::default();
        backlog.add(0.0, 80_000, 0);
        assert_eq!(backlog.tokens(80_000, 8_000.0, 0), 80_000.0);
        assert_eq!(backlog.tokens(80_000, 8_000.0, 5_000), 40_000.0);
        backlog.add(40_000.0, 8_000, 5_000);
        assert_eq!(backlog.tokens(88_000, 8_000.0, 5_000), 48_000.0);
        // However late it is: the second has not been begun while the first one's answer has not.
        assert_eq!(backlog.tokens(88_000, 8_000.0, 60_000), 8_000.0);
        // The first is done, earlier than thought.
        assert_eq!(backlog.tokens(8_000, 8_000.0, 5_500), 8_000.0);
        assert_eq!(backlog.tokens(0, 8_000.0, 5_500), 0.0);
    }

    #[test]
    fn a_runner_that_has_stopped_never_looks_idle() {
        let backlog = Backlog::default();
        let mut counted = 0;
        for second in 0..200 {
            let ahead = backlog.tokens(counted, 8_000.0, second * 1_000);
            assert!(ahead >= counted as f32 - 1_000.0, "{ahead} of {counted}");
            backlog.add(ahead, 1_000, second * 1_000);
            counted = (counted + 1_000).min(1_000 * (Backlog::MARKS as u64 - 1));
        }
    }

    #[test]
    fn what_others_count_too_keeps_within_the_bounds() {
        let backlog = Backlog::default();
        backlog.add(0.0, 1_000, 0);
        let tokens = backlog.tokens(500_000, 8_000.0, 1_000);
        assert!((0.0..=500_000.0).contains(&tokens));
    }

    #[test]
    fn a_clock_that_was_read_before_is_no_eternity() {
        let (pace, backlog) = (Pace::default(), Backlog::default());
        (0..50).for_each(|_| pace.add(1_000.0, 1.0, 1_001));
        pace.add(1_000.0, 1.0, 1_000);
        let known = pace.tokens_per_s(8_000.0, 1_000);
        assert!(known < 5_000.0, "{known}: all but the last is forgotten");
        backlog.add(0.0, 8_000, 1_001);
        assert_eq!(backlog.tokens(8_000, 8_000.0, 1_000), 8_000.0);
    }

    #[test]
    fn pace_is_tokens_by_time_and_fades() {
        let pace = Pace::default();
        assert_eq!(pace.tokens_per_s(5_000.0, 0), 5_000.0);
        for _ in 0..1_000 {
            pace.add(26_000.0, 10.0, 0);
            pace.add(10.0, 0.1, 0);
        }
        let known = pace.tokens_per_s(8_000.0, 0);
        assert!((2_500.0..2_700.0).contains(&known), "{known}");
        let later = pace.tokens_per_s(8_000.0, 3_600_000);
        assert!(later > known && later < 8_000.0, "{later}");
        pace.clear();
        assert_eq!(pace.tokens_per_s(8_000.0, 0), 8_000.0);
    }
}
