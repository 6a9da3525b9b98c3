//! How fast slots are handed out, and so how long a queue takes.

use std::time::Duration;

use tokio::time::Instant;

/// The mean time between two slots that were handed out while somebody waited.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// Since when somebody waits and nothing was handed out.
    since: Option<Instant>,
    /// In seconds.
    interval: Option<f64>,
}

impl Pace {
    /// The share of a new sample in the mean: an eighth, as TCP smooths round trips (RFC 6298).
    const WEIGHT: f64 = 1.0 / 8.0;
    /// The shortest and the longest answer: a client that is told less comes back to the same queue, and what
    /// is further off nobody knows.
    const ANSWERS: (u64, u64) = (1, 60);
    /// What is answered as long as nothing was measured.
    const UNKNOWN: Duration = Duration::from_secs(5);

    /// Somebody waits.
    pub(super) fn waits(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// A slot was handed out, and others wait on or not.
    pub(super) fn handed(&mut self, now: Instant, others: bool) {
        if let Some(since) = self.since {
            let sample = now.saturating_duration_since(since).as_secs_f64();
            let mean = self.interval.map_or(sample, |mean| mean + Self::WEIGHT * (sample - mean));
            self.interval = Some(mean);
        }
        self.since = others.then_some(now);
    }

    /// Nobody waits any more.
    pub(super) fn rests(&mut self) {
        self.since = None;
    }

    /// Slots per second, if any were handed out.
    pub(super) fn rate(&self, now: Instant) -> Option<f64> {
        self.interval_at(now).map(|interval| 1.0 / interval.max(1e-6))
    }

    /// Nothing for a long time is slow, whatever was measured before.
    fn interval_at(&self, now: Instant) -> Option<f64> {
        let silence = self.since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
        self.interval.map(|mean| mean.max(silence))
    }

    pub(super) fn is_known(&self) -> bool {
        self.interval.is_some()
    }

    /// When so many will have been handed a slot: whole seconds, rounded up.
    pub(super) fn retry_after(&self, slots: usize, now: Instant) -> Duration {
        let seconds = match self.interval_at(now) {
            Some(interval) => interval * slots as f64,
            None => Self::UNKNOWN.as_secs_f64(),
        };
        let (least, most) = Self::ANSWERS;
        Duration::from_secs((seconds.ceil() as u64).clamp(least, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paced(seconds: &[u64], silence: u64) -> (Pace, Instant) {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        pace.waits(now);
        for step in seconds {
            now += Duration::from_secs(*step);
            pace.handed(now, true);
        }
        (pace, now + Duration::from_secs(silence))
    }

    #[test]
    fn a_steady_pace_times_the_length() {
        let (pace, now) = paced(&[2; 20], 0);
        assert_eq!(pace.retry_after(10, now), Duration::from_secs(20));
        assert_eq!(pace.rate(now), Some(0.5));
    }

    #[test]
    fn bursts_count_as_their_mean() {
        // Eight slots every eight seconds are one a second.
        let (pace, now) = paced(&[8, 0, 0, 0, 0, 0, 0, 0].repeat(10), 0);
        let after = pace.retry_after(20, now).as_secs();
        assert!((8..=40).contains(&after), "{after}");
    }

    #[test]
    fn silence_is_slow() {
        let (pace, now) = paced(&[1; 5], 9);
        assert_eq!(pace.retry_after(3, now), Duration::from_secs(27));
    }

    #[test]
    fn time_without_waiters_does_not_count() {
        let (mut pace, now) = paced(&[1; 5], 0);
        pace.rests();
        let later = now + Duration::from_secs(3600);
        assert_eq!(pace.retry_after(5, later), Duration::from_secs(5));
        pace.waits(later);
        pace.handed(later + Duration::from_secs(1), false);
        assert_eq!(pace.retry_after(5, later + Duration::from_secs(60)), Duration::from_secs(5));
    }

    #[test]
    fn unknown_and_extremes() {
        let now = Instant::now();
        assert_eq!(Pace::default().retry_after(1000, now), Pace::UNKNOWN);
        let (fast, now) = paced(&[0; 5], 0);
        assert_eq!(fast.retry_after(1000, now), Duration::from_secs(1));
        let (slow, now) = paced(&[50; 5], 0);
        assert_eq!(slow.retry_after(1000, now), Duration::from_secs(60));
    }
}
