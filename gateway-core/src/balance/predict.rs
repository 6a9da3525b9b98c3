//! When a request would be through.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::Candidates;
use super::choice::slots;
use crate::runner::{Load, Runner, Speed, Typical};
use crate::workload::Workload;

/// When a request would be through on a runner, were it sent there now. Always a number: what is not known
/// is assumed, and never to be nothing.
///
/// | what | from |
/// |---|---|
/// | how fast the runner reads prompts and writes answers | what was measured of it, if that stands out ([`NOISE`](Forecast::NOISE)); otherwise, as it grows old ([`FADE`](Forecast::FADE)), and if there is none, the mean of all candidates; if nothing was measured of anyone, [`PREFILL`](Forecast::PREFILL) and [`CHUNK`](Forecast::CHUNK) |
/// | what is ahead | prompts that were sent there and whose answers have not begun ([`Load::prefill_tokens`]), and requests of others beyond its slots |
/// | the prompt | [`Workload::prompt_tokens`], or [`PROMPT`](Forecast::PROMPT) |
/// | the answer | [`Workload::likely_answer`], or [`ANSWER`](Forecast::ANSWER) |
/// | how much company slows it down | the share of slots taken now ([`Load::estimate`]) against the share when it was measured |
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Forecast {
    /// Until the runner is done with the prompts ahead and has a slot, in seconds.
    pub waiting_s: f64,
    /// Reading the prompt, in seconds.
    pub prefill_s: f64,
    /// Writing the answer, in seconds.
    pub decode_s: f64,
}

impl Forecast {
    /// Tokens of a prompt that does not say: the median of Azure's production conversations (the public
    /// dataset of LLM inference traces, 2023). Prompts ahead on a runner are never assumed, only counted.
    pub const PROMPT: u32 = 1_020;
    /// Tokens of an answer whose limit is not known: the mean of Mooncake's production conversations.
    pub const ANSWER: u32 = Workload::MEAN_ANSWER;
    /// Prompt tokens per second while nobody was measured: the order of magnitude of a mid-sized model on one
    /// accelerator. The same for all, so it sways no choice but whether a deadline is thought to be met.
    pub const PREFILL: f32 = 2_000.0;
    /// Time between chunks while nobody was measured. As [`Forecast::PREFILL`].
    pub const CHUNK: Duration = Duration::from_millis(30);
    /// By what factor a runner's speed must differ from its peers' mean to be told from it. Speeds are measured
    /// under load, and late, when the answer has ended: a runner that was just busy looks slower than it is, and
    /// choices that trust this swing from one runner to the next. Equal runners then do worse than if nothing
    /// had been measured (in this project's simulator half as much again in the 99th percentile of time to
    /// first token), while one at a third of its speed is found out all the same.
    pub const NOISE: f32 = 2.0;
    /// In how long a measurement loses half its weight against the peers': a runner that was slow once and is
    /// shunned for it would otherwise never be measured again. Long against a request, short against an
    /// operator's patience; a judgement.
    pub const FADE: Duration = Duration::from_secs(60);

    /// From now to the first byte of the answer.
    pub fn first_byte_s(&self) -> f64 {
        self.waiting_s + self.prefill_s
    }

    /// From now to the end of the answer.
    pub fn finish_s(&self) -> f64 {
        self.waiting_s + self.busy_s()
    }

    /// How long the runner works on it.
    pub fn busy_s(&self) -> f64 {
        self.prefill_s + self.decode_s
    }

    /// For a runner that has `cached` tokens of the prompt already.
    #[inline]
    pub(crate) fn of(workload: &Workload, cached: u32, load: &Load, speed: Speed, typical: Typical) -> Self {
        let trust = Self::FADE.as_secs_f32() / (Self::FADE.as_secs_f32() + speed.age_s);
        // In seconds a token, as that is what adds up.
        let of_speed = |speed: f32| 1.0 / speed.max(f32::MIN_POSITIVE);
        let own = speed.prefill_tokens_per_s.map(of_speed);
        let read_s = f64::from(match typical.prefill_tokens_per_s.map(of_speed) {
            Some(peers) => own.map_or(peers, |own| told_apart(own, peers, trust)),
            None => own.unwrap_or(of_speed(Self::PREFILL)),
        });
        let alone_s = match typical.chunk_alone_s {
            Some(peers) => speed.chunk_alone_s.map_or(peers, |own| told_apart(own, peers, trust)),
            None => speed.chunk_alone_s.unwrap_or(Self::CHUNK.as_secs_f32()),
        };
        let write_s = f64::from(alone_s * load.slowdown(0));

        let prompt = workload.prompt_tokens.unwrap_or(Self::PROMPT).saturating_sub(cached);
        let answer = workload.max_tokens.map_or(Self::ANSWER, |_| workload.likely_answer());
        Self {
            waiting_s: load.prefill_tokens as f64 * read_s + slot_s(load, write_s),
            prefill_s: f64::from(prompt) * read_s,
            decode_s: f64::from(answer) * write_s,
        }
    }
}

/// A runner's own time for a token if it stands out among its peers, the less the older it is; theirs if not.
fn told_apart(own: f32, peers: f32, trust: f32) -> f32 {
    let stands_out = own > peers * Forecast::NOISE || own * Forecast::NOISE < peers;
    if stands_out { peers + (own - peers) * trust } else { peers }
}

/// Until a slot is free on a runner that others keep fuller than it can take. With all slots busy one ends
/// every so often: the time of an answer, divided by the slots.
fn slot_s(load: &Load, write_s: f64) -> f64 {
    let beyond = load.slots.map_or(0, |slots| load.estimate().saturating_add(1).saturating_sub(slots.get()));
    f64::from(beyond) * f64::from(Forecast::ANSWER) * write_s / slots(load)
}

/// What a strategy knows of its candidates on the whole, and remembers for `explain`.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// Bits of two `f32`, each 0 if unknown.
    latest: AtomicU64,
}

impl Peers {
    #[inline]
    pub(super) fn of(&self, candidates: &Candidates<'_>, now: Instant) -> Typical {
        let typical = candidates.typical(now);
        let bits = |value: Option<f32>| u64::from(value.map_or(0, f32::to_bits));
        let word = bits(typical.prefill_tokens_per_s) << 32 | bits(typical.chunk_alone_s);
        // It changes once a second, and a word that is only read is not fought for.
        if self.latest.load(Ordering::Relaxed) != word {
            self.latest.store(word, Ordering::Relaxed);
        }
        typical
    }

    /// As of the latest pick.
    pub(super) fn latest(&self) -> Typical {
        let word = self.latest.load(Ordering::Relaxed);
        let value = |bits: u32| (bits != 0).then(|| f32::from_bits(bits));
        Typical { prefill_tokens_per_s: value((word >> 32) as u32), chunk_alone_s: value(word as u32) }
    }
}

/// The forecast for a runner as it is now.
#[inline]
pub(super) fn forecast(
    workload: &Workload,
    runner: &Runner,
    load: &Load,
    typical: Typical,
    now: Instant,
) -> Forecast {
    Forecast::of(workload, 0, load, runner.speed(now), typical)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn load(in_flight: u32, slots: u32, prefill_tokens: u64) -> Load {
        Load {
            in_flight,
            slots: NonZeroU32::new(slots),
            foreign: None,
            report_age: None,
            queued: None,
            tokens: 0,
            prefill_tokens,
        }
    }

    fn workload(prompt: u32, answer: u32) -> Workload {
        Workload { prompt_tokens: Some(prompt), max_tokens: Some(answer), ..Workload::default() }
    }

    const FAST: Speed = Speed { prefill_tokens_per_s: Some(1_000.0), chunk_alone_s: Some(0.01), age_s: 0.0 };

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-4
    }

    #[test]
    fn adds_up_what_is_ahead_the_prompt_and_the_answer() {
        let forecast = Forecast::of(&workload(500, 100), 0, &load(0, 4, 3_000), FAST, Typical::default());
        assert!(close(forecast.waiting_s, 3.0) && close(forecast.prefill_s, 0.5), "{forecast:?}");
        assert!(close(forecast.decode_s, 1.0) && close(forecast.finish_s(), 4.5), "{forecast:?}");
        assert!(close(forecast.first_byte_s(), 3.5) && close(forecast.busy_s(), 1.5), "{forecast:?}");
    }

    #[test]
    fn company_slows_down_and_a_cached_prompt_is_not_read() {
        let of =
            |cached, load: &Load| Forecast::of(&workload(500, 100), cached, load, FAST, Typical::default());
        assert!(close(of(0, &load(2, 4, 0)).decode_s, 1.5));
        assert!(close(of(0, &load(64, 0, 0)).decode_s, 2.0), "no slots said: twice as slow for 64");
        assert!(close(of(400, &load(0, 4, 0)).prefill_s, 0.1));
        assert_eq!(of(9_000, &load(0, 4, 0)).prefill_s, 0.0);
    }

    #[test]
    fn requests_of_others_beyond_the_slots_are_waited_for() {
        let mut full = load(0, 4, 0);
        (full.foreign, full.report_age) = (Some(5), Some(Duration::ZERO));
        let forecast = Forecast::of(&workload(0, 0), 0, &full, FAST, Typical::default());
        // Two must end first, of four that take 343 chunks of 20 ms.
        assert!(close(forecast.waiting_s, 2.0 * 343.0 * 0.02 / 4.0), "{forecast:?}");
    }

    #[test]
    fn what_is_unknown_is_as_with_the_peers_and_never_nothing() {
        let typical = Typical { prefill_tokens_per_s: Some(100.0), chunk_alone_s: Some(0.1) };
        let unknown = Forecast::of(&workload(500, 100), 0, &load(0, 4, 0), Speed::default(), typical);
        assert!(close(unknown.prefill_s, 5.0) && close(unknown.decode_s, 10.0), "{unknown:?}");
        let nobody =
            Forecast::of(&Workload::default(), 0, &load(0, 4, 0), Speed::default(), Typical::default());
        assert!(close(nobody.prefill_s, 0.51) && close(nobody.decode_s, 10.29), "{nobody:?}");
        let alike = Speed { chunk_alone_s: Some(0.06), prefill_tokens_per_s: Some(180.0), age_s: 0.0 };
        assert_eq!(Forecast::of(&workload(500, 100), 0, &load(0, 4, 0), alike, typical), unknown);
        // After the time of fading, half its own and half the peers'.
        let old = Speed { age_s: Forecast::FADE.as_secs_f32(), ..FAST };
        let faded = Forecast::of(&workload(500, 100), 0, &load(0, 4, 0), old, typical);
        assert!(close(faded.prefill_s, 2.75) && close(faded.decode_s, 5.5), "{faded:?}");
    }
}
