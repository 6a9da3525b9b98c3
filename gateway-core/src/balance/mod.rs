//! Who of the runners that could serve a request does. One file per strategy: a new one goes beside them.

mod affinity;
mod best_fit;
mod candidates;
mod choice;
mod cost_aware;
mod least_loaded;
mod least_tokens;
mod mix;
mod peak_ewma;
mod per_model;
pub mod pipeline;
mod power_of_two;
mod predict;
mod predictive;
mod prefix;
mod random;
mod resource_aware;
pub(crate) mod ring;
mod round_robin;
mod score;
mod strategy;
mod two_choices;
mod weighted_round_robin;

pub(crate) use affinity::MeanShare;
pub use affinity::{PrefixAffinity, SessionAffinity};
pub use best_fit::BestFit;
pub use candidates::{Candidates, Tried};
pub use cost_aware::CostAware;
pub use least_loaded::LeastLoaded;
pub use least_tokens::LeastTokens;
pub use peak_ewma::PeakEwma;
pub use per_model::PerModel;
pub use power_of_two::PowerOfTwo;
pub use predict::Forecast;
pub use predictive::Predictive;
pub use prefix::PrefixCache;
pub use random::Random;
pub use resource_aware::ResourceAware;
pub use round_robin::RoundRobin;
pub use score::Score;
pub use strategy::{Strategy, UnknownStrategy};
pub use weighted_round_robin::WeightedRoundRobin;

use crate::dispatch::Attempt;
use crate::router::Requirements;
use crate::runner::{Reservation, Runner};

/// Chooses a runner for a request and reserves it, in one step.
///
/// The smallest one takes the first that is free:
///
/// ```
/// use gateway_core::{Balancer, Candidates, Requirements, Reservation};
/// struct FirstFree;
/// impl Balancer for FirstFree {
///     fn name(&self) -> &'static str {
///         "first-free"
///     }
///     fn pick(&self, _: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
///         (0..candidates.len()).find_map(|at| candidates.try_reserve(at))
///     }
/// }
/// ```
pub trait Balancer: Send + Sync + 'static {
    /// The strategy's name in configuration, logs and the `x-router-reason` header.
    fn name(&self) -> &'static str;

    /// Reserves one of the candidates, or returns `None` if none of them has a slot free.
    ///
    /// Called on every try, from many threads at once: it should neither lock nor allocate. A
    /// candidate seen free may be taken by the time it is reserved; then choose again.
    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation>;

    /// Whether it uses the hashes of prompts ([`Workload::prefix`](crate::Workload::prefix)). They are made
    /// only if so.
    fn reads_prompts(&self) -> bool {
        false
    }

    /// What speaks for and against a runner, for the admin's `explain`. Adds to `scores`; adds nothing
    /// unless a strategy says so. Not on the way of a request.
    fn scores(&self, requirements: &Requirements, runner: &Runner, scores: &mut Vec<Score>) {
        let _ = (requirements, runner, scores);
    }

    /// Learns how a try ended. Called once for every reservation that was used.
    fn observe(&self, attempt: &Attempt<'_>) {
        let _ = attempt;
    }
}
