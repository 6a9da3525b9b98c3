//! One try on one runner, from its reservation to its outcome.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use super::outcome::{Attempt, Cancel, Outcome};
use crate::health::Change;
use crate::names::{ModelId, RequestId};
use crate::router::Requirements;
use crate::runner::{Reservation, Runner, Sample};
use crate::workload::Workload;

/// Holds the reservation and tells the observers once how the try ended. Dropped without a word, it was
/// cancelled.
pub(super) struct Try {
    shared: Arc<Shared>,
    runner: Arc<Runner>,
    reservation: Option<Reservation>,
    request_id: RequestId,
    model: Option<ModelId>,
    workload: Workload,
    reason: Option<&'static str>,
    is_fallback: bool,
    /// Prompt tokens that the runner had to read before this answer could begin, as counted here.
    prefill_tokens: u64,
    pub(super) sent: Instant,
    /// Whether the answer comes as it is written, not in one piece when it is done.
    pub(super) streamed: bool,
    first_byte: Option<Instant>,
    /// For how long the runner asks to be left alone.
    pub(super) retry_after: Option<Duration>,
    pub(super) bytes: u64,
    pub(super) chunks: u32,
}

impl Try {
    pub(super) fn new(
        shared: &Arc<Shared>,
        reservation: Reservation,
        request_id: &RequestId,
        requirements: &Requirements,
        is_fallback: bool,
        now: Instant,
    ) -> Self {
        Self {
            shared: shared.clone(),
            runner: reservation.runner().clone(),
            request_id: request_id.clone(),
            model: requirements.model.clone(),
            workload: requirements.workload.clone(),
            reason: reservation.reason(),
            is_fallback,
            prefill_tokens: reservation.tokens_ahead(),
            reservation: Some(reservation),
            sent: now,
            streamed: false,
            first_byte: None,
            retry_after: None,
            bytes: 0,
            chunks: 0,
        }
    }

    /// The first byte of the answer's body is here.
    pub(super) fn begun(&mut self) {
        self.first_byte = Some(Instant::now());
        if let Some(reservation) = &mut self.reservation {
            reservation.prefilled();
        }
    }

    /// The answer has begun, and with this outcome if it ends well: proof enough for a probe, whose place
    /// the next may have.
    pub(super) fn proved(&mut self, outcome: Outcome) {
        let Some(probe) = self.reservation.as_mut().and_then(Reservation::probe) else { return };
        if outcome != Outcome::Success {
            return;
        }
        let change = self.runner.live().conduct().proved(probe, Instant::now(), &self.shared.chooser.health);
        self.tell(change);
        match change {
            Some(Change::Closed) => self.runner.bell().fleet_changed(),
            _ => self.runner.bell().slot_freed(&self.runner),
        }
    }

    fn tell(&self, change: Option<Change>) {
        let (runner, request_id) = (self.runner.key(), &self.request_id);
        match change {
            None => {}
            Some(Change::Opened) => {
                tracing::warn!(%runner, %request_id, "circuit breaker opened: too many faults");
            }
            Some(Change::Closed) => tracing::info!(%runner, %request_id, "circuit breaker closed"),
            Some(Change::Held) => {
                tracing::warn!(%runner, %request_id, "cannot be reached: others are preferred for a while");
            }
        }
    }

    /// Tells the runner's breaker and whatever else keeps account of it.
    fn judge(&self, reservation: &mut Reservation, outcome: Outcome, now: Instant) {
        let chooser = &self.shared.chooser;
        let conduct = self.runner.live().conduct();
        reservation.used(now);
        let change = conduct.record(outcome, self.retry_after, reservation.probe(), now, &chooser.health);
        self.tell(change);
        if change == Some(Change::Closed) {
            self.runner.bell().fleet_changed();
        }
        if let Some(model) = &self.model {
            self.shared.outliers.tried(model, || chooser.registry.fleet(), now, &chooser.health);
        }
    }

    pub(super) fn first_byte(&self) -> Option<Instant> {
        self.first_byte
    }

    pub(super) fn runner(&self) -> &Arc<Runner> {
        &self.runner
    }

    /// The model that was asked of the runner.
    pub(super) fn model(&self) -> Option<&ModelId> {
        self.model.as_ref()
    }

    /// Why the runner was chosen.
    pub(super) fn reason(&self) -> Option<&'static str> {
        self.reason
    }

    /// Whether the model is not the one that was asked for, but one to fall back on.
    pub(super) fn is_fallback(&self) -> bool {
        self.is_fallback
    }

    pub(super) fn request_id(&self) -> &RequestId {
        &self.request_id
    }

    /// Tells the outcome and gives the slot back. Only the first call counts.
    pub(super) fn finish(&mut self, outcome: Outcome) {
        let Some(mut reservation) = self.reservation.take() else { return };
        let now = Instant::now();
        self.judge(&mut reservation, outcome, now);
        if outcome.leaves_work_behind() {
            reservation.broken_off();
        }
        let attempt = Attempt {
            request_id: &self.request_id,
            model: self.model.as_ref(),
            workload: &self.workload,
            runner: &self.runner,
            outcome,
            streamed: self.streamed,
            first_byte: self.first_byte.map(|at| at - self.sent),
            duration: now - self.sent,
            bytes: self.bytes,
            chunks: self.chunks,
            prefill_tokens: self.prefill_tokens,
        };
        if let (Outcome::Success, Some(first_byte)) = (outcome, attempt.first_byte) {
            let sample = Sample {
                first_byte,
                prefill_tokens: self.prefill_tokens,
                streamed: self.streamed,
                streaming: attempt.duration.saturating_sub(first_byte),
                chunks: self.chunks,
            };
            self.runner.measure(sample, now);
        }
        self.shared.chooser.balancer.observe(&attempt);
        for observer in &self.shared.observers {
            observer.attempt(&attempt);
        }
        drop(reservation);
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        self.finish(Outcome::Cancelled(Cancel::ByCaller));
    }
}
