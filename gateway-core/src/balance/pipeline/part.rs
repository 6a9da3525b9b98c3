//! What a pipeline is put together from.

use std::sync::Arc;

use tokio::time::Instant;

use super::scale::Scale;
use crate::balance::predict::{Forecast, forecast};
use crate::dispatch::Attempt;
use crate::router::Requirements;
use crate::runner::{Load, Reservation, Runner, Typical};

/// Says who is left out.
///
/// ```
/// use gateway_core::pipeline::{Filter, Scene};
/// use gateway_core::{Requirements, Runner};
///
/// /// Leaves out machines that joined less than a minute ago.
/// struct Settled;
///
/// impl Filter for Settled {
///     fn name(&self) -> &'static str {
///         "settled"
///     }
///     fn keep(&self, _: &Requirements, runner: &Runner, scene: &Scene) -> bool {
///         scene.now() - runner.joined() >= std::time::Duration::from_secs(60)
///     }
/// }
/// ```
pub trait Filter: Send + Sync + 'static {
    /// What it looks at, in a word, for `explain`.
    fn name(&self) -> &'static str;

    /// Whether the runner may be picked. Called for every candidate of every pick: it should neither lock nor
    /// allocate.
    fn keep(&self, requirements: &Requirements, runner: &Runner, scene: &Scene) -> bool;
}

/// Says how good a runner is for a request. An example is in the [module](super)'s docs.
pub trait Scorer: Send + Sync + 'static {
    /// What it looks at, in a word, for `explain`.
    fn name(&self) -> &'static str;

    /// How good the runner is: from 0, the worst, to 1, the best, unless [`scale`](Scorer::scale) says
    /// otherwise. `None` if it is not known; then the runner counts as neither good nor bad.
    ///
    /// Called for every candidate of every pick: it should neither lock nor allocate.
    fn score(&self, requirements: &Requirements, runner: &Runner, scene: &Scene) -> Option<f64>;

    /// What the score means. Asked once, when the pipeline is built.
    fn scale(&self) -> Scale {
        Scale::Share
    }

    /// Whether it uses the hashes of prompts, which are made only if so.
    fn reads_prompts(&self) -> bool {
        false
    }

    /// The pipeline chose this runner. A scorer that knows something may note it on the reservation, such as
    /// how much of the prompt is cached there, or remember it.
    fn chosen(&self, requirements: &Requirements, reservation: Reservation) -> Reservation {
        let _ = requirements;
        reservation
    }

    /// Learns how a try ended.
    fn observe(&self, attempt: &Attempt<'_>) {
        let _ = attempt;
    }
}

/// What a part sees besides request and runner: the moment of the choice, the runner's load, read once for
/// all parts, and what is known of the candidates on the whole.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    load: Load,
    now: Instant,
    typical: Typical,
}

impl Scene {
    pub(super) fn new(load: Load, now: Instant, typical: Typical) -> Self {
        Self { load, now, typical }
    }

    /// A runner on its own, as it is now: for trying out a part.
    pub fn of(runner: &Runner) -> Self {
        let now = Instant::now();
        Self::new(runner.load_at(now), now, Typical::default())
    }

    /// When the choice is made.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// How busy the runner is.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// When the request would be through on this runner.
    pub fn forecast(&self, requirements: &Requirements, runner: &Runner) -> Forecast {
        forecast(&requirements.workload, runner, &self.load, self.typical, self.now)
    }
}

impl<F: Filter + ?Sized> Filter for Arc<F> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn keep(&self, requirements: &Requirements, runner: &Runner, scene: &Scene) -> bool {
        (**self).keep(requirements, runner, scene)
    }
}

impl<S: Scorer + ?Sized> Scorer for Arc<S> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn score(&self, requirements: &Requirements, runner: &Runner, scene: &Scene) -> Option<f64> {
        (**self).score(requirements, runner, scene)
    }

    fn scale(&self) -> Scale {
        (**self).scale()
    }

    fn reads_prompts(&self) -> bool {
        (**self).reads_prompts()
    }

    fn chosen(&self, requirements: &Requirements, reservation: Reservation) -> Reservation {
        (**self).chosen(requirements, reservation)
    }

    fn observe(&self, attempt: &Attempt<'_>) {
        (**self).observe(attempt);
    }
}
