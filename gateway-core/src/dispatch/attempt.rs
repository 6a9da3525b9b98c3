//! One try on one runner, from its reservation to its outcome.

use std::sync::Arc;

use tokio::time::Instant;

use super::Shared;
use super::outcome::{Attempt, Cancel, Outcome};
use crate::names::{ModelId, RequestId};
use crate::runner::{Reservation, Runner};

/// Holds the reservation and tells the observers once how the try ended. Dropped without a word, it was
/// cancelled.
pub(super) struct Try {
    shared: Arc<Shared>,
    runner: Arc<Runner>,
    reservation: Option<Reservation>,
    request_id: RequestId,
    model: Option<ModelId>,
    pub(super) sent: Instant,
    pub(super) first_byte: Option<Instant>,
    pub(super) bytes: u64,
}

impl Try {
    pub(super) fn new(
        shared: &Arc<Shared>,
        reservation: Reservation,
        request_id: &RequestId,
        model: Option<&ModelId>,
    ) -> Self {
        Self {
            shared: shared.clone(),
            runner: reservation.runner().clone(),
            reservation: Some(reservation),
            request_id: request_id.clone(),
            model: model.cloned(),
            sent: Instant::now(),
            first_byte: None,
            bytes: 0,
        }
    }

    pub(super) fn runner(&self) -> &Arc<Runner> {
        &self.runner
    }

    pub(super) fn request_id(&self) -> &RequestId {
        &self.request_id
    }

    /// Tells the outcome and gives the slot back. Only the first call counts.
    pub(super) fn finish(&mut self, outcome: Outcome) {
        let Some(reservation) = self.reservation.take() else { return };
        let attempt = Attempt {
            request_id: &self.request_id,
            model: self.model.as_ref(),
            runner: &self.runner,
            outcome,
            first_byte: self.first_byte.map(|at| at - self.sent),
            duration: self.sent.elapsed(),
            bytes: self.bytes,
        };
        self.shared.balancer.observe(&attempt);
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
