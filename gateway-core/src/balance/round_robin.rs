use super::choice::reserve_any;
use super::{Balancer, Candidates};
use crate::router::Requirements;
use crate::runner::{Reservation, Tick};

/// One after the other.
///
/// Use it when runners and requests are alike. Costs one atomic addition per place looked at. A runner
/// that is full or ineligible is skipped by taking the next turn, not by favouring its neighbour; after
/// [`RoundRobin::TURNS`] of them all are looked at, and one of those that have room is drawn.
///
/// Turns are counted for each set of runners (those that have a model loaded) by itself: requests that
/// alternate between two models go round among the runners of each.
#[derive(Debug, Default)]
pub struct RoundRobin {
    /// For runners that are no set.
    turn: Tick,
}

impl RoundRobin {
    /// How many turns of runners that cannot take the request are passed over before every candidate is looked
    /// at. With nine in ten runners full, that is needed for one pick in five (0.9^16).
    pub const TURNS: usize = 16;
}

impl Balancer for RoundRobin {
    fn name(&self) -> &'static str {
        "round-robin"
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let places = candidates.len();
        for _ in 0..places.min(Self::TURNS) {
            let turn = candidates.set().map_or_else(|| self.turn.next(), |set| set.next_turn());
            // Less than the number of places, which is a `usize`.
            let at = (turn % places as u64) as usize;
            if let Some(reservation) = candidates.try_reserve(at) {
                return Some(reservation);
            }
        }
        // Others take turns too, so a place may have been passed over.
        reserve_any(requirements, candidates)
    }
}
