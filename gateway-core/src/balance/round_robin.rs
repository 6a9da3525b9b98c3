use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Balancer, Candidates};
use crate::router::Requirements;
use crate::runner::Reservation;

/// One after the other.
///
/// Use it when runners and requests are alike. Costs one atomic addition per place looked at. A runner
/// that is full or ineligible is skipped by taking the next number, not by favouring its neighbour.
#[derive(Debug, Default)]
pub struct RoundRobin {
    next: AtomicUsize,
}

impl Balancer for RoundRobin {
    fn name(&self) -> &'static str {
        "round-robin"
    }

    fn pick(&self, _: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let places = candidates.len();
        for _ in 0..places {
            let at = self.next.fetch_add(1, Ordering::Relaxed) % places;
            if let Some(reservation) = candidates.try_reserve(at) {
                return Some(reservation);
            }
        }
        // Others draw numbers too, so a place may have been passed over: look at each once.
        (0..places).find_map(|at| candidates.try_reserve(at))
    }
}
