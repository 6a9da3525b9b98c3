use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::ledger::Moment;
use super::usage::Usage;
use super::{Resources, Runner};
use crate::health::Probe;

/// What is counted with a slot.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Booking {
    pub(crate) tokens: u32,
    pub(crate) prefill_tokens: u32,
    pub(crate) resources: Option<Resources>,
    /// When they were promised.
    pub(crate) promised: Moment,
    /// Place of the model in the runner's status, which never changes inside a [`Runner`]; `None` if the
    /// request names none.
    pub(crate) model: Option<u32>,
}

impl Booking {
    /// Whether nothing is counted but the slot and the use of the model.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.tokens == 0 && self.prefill_tokens == 0 && self.resources.is_none()
    }

    fn usage<'r>(&self, runner: &'r Runner) -> Option<&'r Usage> {
        match self.model? {
            0 => runner.hot.usage.as_deref(),
            model => runner.usage.get(model as usize).map(|usage| &**usage),
        }
    }

    /// Counts the request among those that use its model; `false` while that must not be used.
    #[inline]
    pub(super) fn begin(&self, runner: &Runner) -> bool {
        self.usage(runner).map_or(runner.live.unnamed(), Usage::latch).begin()
    }

    /// Takes back a beginning that came to nothing.
    pub(super) fn undo(&self, runner: &Runner) {
        self.usage(runner).map_or(runner.live.unnamed(), Usage::latch).end();
    }

    fn end(&self, runner: &Runner) {
        match self.usage(runner) {
            Some(usage) => usage.end(),
            None => runner.live.unnamed().end(),
        }
    }
}

/// A slot held on a runner, with what the request was said to need. Made by [`Runner::try_reserve`] and its
/// kin only, cannot be cloned, and is given back by dropping it and in no other way.
#[must_use = "dropping a reservation gives the slot back"]
pub struct Reservation {
    runner: Arc<Runner>,
    booking: Booking,
    because: Option<&'static str>,
    ahead: Option<u64>,
    /// It is let in by a half-open breaker.
    probe: Option<Probe>,
    broken_off: bool,
}

impl Reservation {
    pub(super) fn new(runner: Arc<Runner>, booking: Booking, probe: Option<Probe>) -> Self {
        Self { runner, booking, because: None, ahead: None, probe, broken_off: false }
    }

    /// The runner on which the slot is held.
    pub fn runner(&self) -> &Arc<Runner> {
        &self.runner
    }

    /// Says in a word why this runner was chosen, such as `prefix`. Shown in `x-router-reason`: visible ASCII
    /// only.
    pub fn because(mut self, reason: &'static str) -> Self {
        self.because = Some(reason);
        self
    }

    /// Why this runner was chosen, if its strategy said so.
    pub fn reason(&self) -> Option<&'static str> {
        self.because
    }

    /// Says that the runner has so many tokens of the prompt in its cache, which it need not read again.
    pub fn with_cached(mut self, tokens: u32) -> Self {
        let cached = tokens.min(self.booking.prefill_tokens);
        self.runner.live().prefilled(cached);
        self.booking.prefill_tokens -= cached;
        self
    }

    /// Says how many prompt tokens the runner has to read before this answer can begin, those of this prompt
    /// and of others ahead of it, for a strategy that knows better than what is
    /// [counted](crate::Load::prefill_tokens). The runner's speed is measured with it.
    pub fn with_ahead(mut self, tokens: u64) -> Self {
        self.ahead = Some(tokens);
        self
    }

    /// Prompt tokens to read before this answer can begin; 0 if unknown.
    pub(crate) fn tokens_ahead(&self) -> u64 {
        let known = self.booking.prefill_tokens > 0;
        let counted = || if known { self.runner.live().prefill_tokens() } else { 0 };
        self.ahead.unwrap_or_else(counted)
    }

    /// Tokens of the prompt that the runner has yet to read, as far as is known.
    pub fn prefill_tokens(&self) -> u32 {
        self.booking.prefill_tokens
    }

    /// The prompt has been read: the answer has begun.
    pub(crate) fn prefilled(&mut self) {
        self.runner.live().prefilled(std::mem::take(&mut self.booking.prefill_tokens));
    }

    /// Says that the request has used the runner's model until now: an idle model is unloaded some time after
    /// that. The dispatcher says it of every request; a reservation that is dropped without a word was not used.
    pub fn used(&self, now: Instant) {
        if let Some(usage) = self.booking.usage(&self.runner) {
            usage.touch(now);
        }
    }

    /// Says that the request was sent and then broken off, so that the runner may be at it for a while yet. Its
    /// slot is free when the reservation is dropped; its [resources](crate::Requirements::resources) count as
    /// taken until a report that is newer, or, if the runner makes none, until then. The dispatcher says it of
    /// every request that is cancelled or whose connection fails.
    pub fn broken_off(&mut self) {
        self.broken_off = true;
    }

    pub(crate) fn probe(&mut self) -> Option<&mut Probe> {
        self.probe.as_mut()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(probe) = &mut self.probe {
            self.runner.live().conduct().give_back(probe);
        }
        self.booking.end(&self.runner);
        self.runner.give_back(&self.booking, self.broken_off);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reservation").field(self.runner.key()).finish()
    }
}
