//! How fast a runner has proved to be, measured here.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::Runner;
use crate::dispatch::Outcome;

/// How fast a runner has proved to be. What was never measured is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Measured {
    /// Time from sending a request to the first byte of its answer: mean, newer ones counting for more. Of a request
    /// that a [hedge](crate::HedgePolicy) answered sooner, the time until then if it is longer than the mean.
    pub first_byte: Option<Duration>,
    /// The same, jumping to every peak and falling slowly: [`Measured::DECAY`].
    pub peak_first_byte: Option<Duration>,
    /// Prompt tokens per second, counting those that were ahead of the request. Long prompts count for more, so
    /// that what a request costs whatever its length is not taken for slow reading.
    pub prefill_tokens_per_s: Option<f32>,
    /// Time between two chunks of an answer, which with most engines is a token.
    pub chunk_interval: Option<Duration>,
    /// Answers that these figures are from.
    pub answers: u32,
}

impl Measured {
    /// In how long a peak falls to 1/e: 10 s, as Finagle's and Linkerd's peak-EWMA balancers do by default.
    pub const DECAY: Duration = Duration::from_secs(10);
    /// How much a new measurement counts against all before it: one in eight, TCP's weight for its smoothed
    /// round-trip time (RFC 6298, section 2).
    pub const WEIGHT: f32 = 0.125;
}

/// One finished answer, as far as it is a measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) first_byte: Duration,
    /// Prompt tokens that the runner had to read until then, those ahead included; 0: unknown.
    pub(crate) prefill_tokens: u64,
    /// Whether it came as it was written. If not, its time to first byte is that of the whole answer, and its
    /// chunks are the network's.
    pub(crate) streamed: bool,
    /// From the first byte to the end.
    pub(crate) streaming: Duration,
    pub(crate) chunks: u32,
}

/// How fast a runner is at prompts and at answers, as far as it was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Speed {
    pub(crate) prefill_tokens_per_s: Option<f32>,
    /// Time between two chunks of an answer while nothing else is on the runner.
    pub(crate) chunk_alone_s: Option<f32>,
    /// Time since the last measurement.
    pub(crate) age_s: f32,
}

#[derive(Debug)]
pub(crate) struct Meter {
    first_byte_s: Mean,
    /// The same of answers that came as they were written: the time to the first byte of another is that of all of it,
    /// and says more of what was asked than of the runner.
    streamed_s: Mean,
    streamed: AtomicU32,
    /// Tokens of prompts, and the time until they were read: a mean of speeds would count a short prompt, whose
    /// time is all overhead, as much as a long one.
    prefill_tokens: Mean,
    prefill_s: Mean,
    chunk_s: Mean,
    /// The same as if nothing else had been on the runner, as near as can be told: see [`Mean::add_low`].
    chunk_alone_s: Mean,
    answers: AtomicU32,
}

impl Meter {
    pub(crate) fn new() -> Self {
        Self {
            first_byte_s: Mean::new(),
            streamed_s: Mean::new(),
            streamed: AtomicU32::new(0),
            prefill_tokens: Mean::new(),
            prefill_s: Mean::new(),
            chunk_s: Mean::new(),
            chunk_alone_s: Mean::new(),
            answers: AtomicU32::new(0),
        }
    }

    /// Adds a sample that was taken while the runner wrote `slowdown` times as slowly as for one request
    /// alone, which is asked only of an answer that tells of writing.
    pub(crate) fn add(&self, sample: Sample, slowdown: impl FnOnce() -> f32) {
        let first_byte = sample.first_byte.as_secs_f32();
        self.first_byte_s.add(first_byte);
        if sample.streamed {
            self.streamed_s.add(first_byte);
            self.streamed.fetch_add(1, Ordering::Relaxed);
        }
        if sample.streamed && sample.prefill_tokens > 0 && first_byte > 0.0 {
            self.prefill_tokens.add(sample.prefill_tokens as f32);
            self.prefill_s.add(first_byte);
        }
        // The first chunk is the first byte, so there is one interval less than chunks.
        if sample.streamed && sample.chunks > 1 {
            let interval = sample.streaming.as_secs_f32() / (sample.chunks - 1) as f32;
            self.chunk_s.add(interval);
            self.chunk_alone_s.add_low(interval / slowdown());
        }
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds an answer that was given up before it began: all that is known is that it would have taken longer. So
    /// it counts if that makes the runner slower than it was thought to be.
    pub(crate) fn add_at_least(&self, first_byte: Duration) {
        let least = first_byte.as_secs_f32();
        if self.first_byte_s.get().is_none_or(|mean| mean < least) {
            self.first_byte_s.add(least);
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[inline]
    fn prefill_tokens_per_s(&self) -> Option<f32> {
        Some(self.prefill_tokens.get()? / self.prefill_s.get()?)
    }

    /// The mean time to first byte of streamed answers, and how many it is from.
    pub(crate) fn mean_first_byte(&self) -> (Option<Duration>, u32) {
        let mean = self.streamed_s.get().and_then(|mean| Duration::try_from_secs_f32(mean).ok());
        (mean, self.streamed.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn chunk_s(&self) -> Option<f32> {
        self.chunk_s.get()
    }

    /// What a forecast is made from, the last measurement so old.
    #[inline]
    pub(crate) fn speed(&self, age_s: f32) -> Speed {
        Speed {
            prefill_tokens_per_s: self.prefill_tokens_per_s(),
            chunk_alone_s: self.chunk_alone_s.get(),
            age_s,
        }
    }

    /// All of it, with what the peak is now.
    pub(crate) fn read(&self, peak_s: Option<f32>) -> Measured {
        let time = |seconds: f32| Duration::try_from_secs_f32(seconds).unwrap_or_default();
        Measured {
            first_byte: self.first_byte_s.get().map(time),
            peak_first_byte: peak_s.map(time),
            prefill_tokens_per_s: self.prefill_tokens_per_s(),
            chunk_interval: self.chunk_s.get().map(time),
            answers: self.answers.load(Ordering::Relaxed),
        }
    }
}

/// A moving mean without a lock; 0 bits are "nothing yet".
#[derive(Debug)]
struct Mean(AtomicU32);

impl Mean {
    fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    fn add(&self, value: f32) {
        self.add_weighed(value, |_| Measured::WEIGHT);
    }

    /// As [`Mean::add`], but a greater value counts an eighth of what a smaller one does, so that it keeps near
    /// the least. What delays a runner comes and goes, what it can do stays; the least is nearest to that, and
    /// the very least may be an accident.
    fn add_low(&self, value: f32) {
        self.add_weighed(value, |old| Measured::WEIGHT / if value > old { 8.0 } else { 1.0 });
    }

    fn add_weighed(&self, value: f32, weight: impl Fn(f32) -> f32) {
        if !value.is_finite() {
            return;
        }
        // Nothing measured is exactly 0, so that 0 can stand for "nothing".
        let value = value.max(f32::MIN_POSITIVE);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
            let old = f32::from_bits(bits);
            let next = if bits == 0 { value } else { old + (value - old) * weight(old) };
            Some(next.to_bits())
        });
    }

    fn get(&self) -> Option<f32> {
        let bits = self.0.load(Ordering::Relaxed);
        (bits != 0).then(|| f32::from_bits(bits))
    }
}

impl Runner {
    /// How fast it has proved to be.
    pub fn measured(&self) -> Measured {
        self.live.meter().read(self.peak_first_byte_s(Instant::now()))
    }

    /// The peak of its time to first byte, in seconds, as [`Measured::peak_first_byte`]; one read.
    pub fn peak_first_byte_s(&self, now: Instant) -> Option<f32> {
        self.hot.spot.peak_s(now)
    }

    /// Its time between two chunks of an answer, in seconds, as [`Measured::chunk_interval`]; one read.
    pub fn chunk_interval_s(&self) -> Option<f32> {
        self.live.meter().chunk_s()
    }

    pub(crate) fn measure(&self, sample: Sample, now: Instant) {
        // Those beside it when it ends stand for those that were beside it while it ran.
        self.live.meter().add(sample, || self.load_at(now).slowdown(1));
        self.hot.spot.add_peak(sample.first_byte, now);
    }

    /// Another runner's answer began first, when this one's had not after such a time.
    pub(crate) fn overtaken(&self, after: Duration) {
        let now = Instant::now();
        self.live.meter().add_at_least(after);
        if self.peak_first_byte_s(now).is_none_or(|peak| peak < after.as_secs_f32()) {
            self.hot.spot.add_peak(after, now);
        }
    }

    pub(crate) fn speed(&self, now: Instant) -> Speed {
        self.live.meter().speed(self.hot.spot.measured_ago_s(now))
    }

    /// How tries on this registration ended, and how many so. Those that are under way are not among them.
    pub fn outcomes(&self) -> impl Iterator<Item = (Outcome, u64)> + '_ {
        self.live.conduct().outcomes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(first_byte: f32) -> Sample {
        Sample {
            first_byte: Duration::from_secs_f32(first_byte),
            prefill_tokens: 1000,
            streamed: true,
            streaming: Duration::from_secs(1),
            chunks: 11,
        }
    }

    #[test]
    fn newer_answers_count_for_more() {
        let meter = Meter::new();
        assert_eq!(meter.read(None), Measured::default());
        meter.add(sample(0.5), || 1.0);
        meter.add(sample(2.0), || 1.0);
        meter.add(sample(0.5), || 1.0);
        let now = meter.read(Some(2.0));
        assert_eq!(now.peak_first_byte, Some(Duration::from_secs(2)));
        assert_eq!(now.chunk_interval, Some(Duration::from_secs_f32(0.1)));
        assert!(now.first_byte.unwrap() < Duration::from_secs(1));
        assert_eq!(now.answers, 3);
        let speed = meter.speed(9.0);
        assert_eq!((speed.chunk_alone_s, speed.age_s), (Some(0.1), 9.0));
    }

    #[test]
    fn a_short_prompt_does_not_pass_for_slow_reading() {
        let meter = Meter::new();
        // 1,000 tokens a second, and 100 ms for anything.
        for prefill_tokens in [10, 5_000, 10, 5_000] {
            let first_byte = Duration::from_millis(100 + prefill_tokens);
            meter.add(Sample { first_byte, prefill_tokens, ..sample(0.0) }, || 1.0);
        }
        let speed = meter.read(None).prefill_tokens_per_s.unwrap();
        assert!((850.0..1_000.0).contains(&speed), "{speed}");
    }

    #[test]
    fn delays_that_come_and_go_are_not_the_runners_own() {
        let meter = Meter::new();
        for turn in 0..200 {
            // Every other answer is held up to five times its time.
            let streaming = Duration::from_secs(if turn % 2 == 0 { 1 } else { 5 });
            meter.add(Sample { streaming, ..sample(0.5) }, || 1.0);
        }
        let alone = meter.speed(0.0).chunk_alone_s.unwrap();
        assert!((0.1..0.16).contains(&alone), "{alone}");
    }

    #[test]
    fn what_comes_in_one_piece_tells_nothing_of_reading_and_writing() {
        let meter = Meter::new();
        meter.add(Sample { streamed: false, ..sample(8.0) }, || 1.0);
        let speed = meter.speed(0.0);
        assert_eq!((speed.prefill_tokens_per_s, speed.chunk_alone_s), (None, None));
        assert_eq!(meter.read(None).first_byte, Some(Duration::from_secs(8)));
        assert_eq!(meter.mean_first_byte(), (None, 0), "nobody is called slow for it");
    }

    #[test]
    fn what_company_cost_is_taken_out() {
        let meter = Meter::new();
        meter.add(sample(0.5), || 2.0);
        assert_eq!(meter.speed(0.0).chunk_alone_s, Some(0.05));
        assert_eq!(meter.read(None).chunk_interval, Some(Duration::from_secs_f32(0.1)));
    }
}
