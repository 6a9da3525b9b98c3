use super::choice::reserve_any;
use super::{Balancer, Candidates};
use crate::router::Requirements;
use crate::runner::Reservation;

/// Any candidate, each with the same chance.
///
/// Use it to compare others with, or where many gateways share a fleet and must not march in step. It knows
/// nothing of load beyond who is full: with as many requests as runners, the busiest runner of a thousand has
/// about five. [`PowerOfTwo`](crate::PowerOfTwo) is as cheap and far more even.
///
/// Costs a random number per draw. After [`Random::DRAWS`] draws of runners that cannot take the request, all
/// are looked at, and one of those that can is drawn.
#[derive(Debug, Clone, Copy, Default)]
pub struct Random;

impl Random {
    /// How often a place is drawn before every candidate is looked at. With nine in ten runners full, that is
    /// needed for one pick in five (0.9^16); with half of them full, for one in 65,000.
    pub const DRAWS: u32 = 16;
}

impl Balancer for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let places = candidates.len();
        if places == 0 {
            return None;
        }
        let drawn = (0..Self::DRAWS).find_map(|_| candidates.try_reserve(fastrand::usize(..places)));
        drawn.or_else(|| reserve_any(requirements, candidates))
    }
}
