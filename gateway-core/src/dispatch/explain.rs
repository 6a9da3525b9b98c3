//! What a choice would be, without making it.

use std::sync::Arc;

use tokio::time::Instant;

use super::Dispatcher;
use super::plan::Plan;
use crate::balance::Score;
use crate::names::ModelId;
use crate::router::{Refusal, Requirements};
use crate::runner::Runner;

/// What speaks for and against each runner for a request. Made by [`Dispatcher::explain`].
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The balancer's name.
    pub strategy: &'static str,
    /// The models that would do, best first, fallbacks last.
    pub targets: Vec<ModelId>,
    /// Every runner that knows one of them; all runners if the request names no model or one that nobody
    /// knows.
    pub runners: Vec<Explained>,
}

/// What speaks for and against one runner.
#[derive(Debug, Clone)]
pub struct Explained {
    /// The runner.
    pub runner: Arc<Runner>,
    /// With which model it would serve.
    pub model: Option<ModelId>,
    /// How many of the models that would do are looked at before this one; 0: none.
    pub rank: usize,
    /// Whether the model is one to fall back on when nobody can serve what was asked for.
    pub is_fallback: bool,
    /// Why it cannot be reserved now, or `None` if it can.
    pub refusal: Option<Refusal>,
    /// What the balancer looks at.
    pub scores: Vec<Score>,
}

impl Dispatcher {
    /// Says what would become of a request, runner by runner. Sends nothing and reserves nothing. Costs an
    /// allocation or more per runner: for admins, not for every request.
    pub fn explain(&self, requirements: &Requirements) -> Explanation {
        let shared = &self.shared;
        let chooser = &shared.chooser;
        let plan = Plan::new(requirements.clone(), &shared.routes, Instant::now());
        let fleet = chooser.registry.fleet();
        let mut runners = Vec::new();
        let mut targets = Vec::new();
        let fallbacks_from = plan.wishes(false).count();
        for (rank, wish) in plan.all_wishes(true).enumerate() {
            targets.extend(wish.model().cloned());
            let pool = chooser.router.pool(wish.requirements, &fleet);
            let candidates = chooser.candidates(pool, wish.requirements, &[]);
            let entry = wish.model().and_then(|model| fleet.model(model.as_str()));
            for runner in entry.map_or(fleet.runners(), |entry| entry.known()) {
                let mut scores = Vec::new();
                chooser.balancer.scores(wish.requirements, runner, &mut scores);
                runners.push(Explained {
                    runner: runner.clone(),
                    model: wish.model().cloned(),
                    rank,
                    is_fallback: rank >= fallbacks_from,
                    refusal: candidates.refusal(runner),
                    scores,
                });
            }
        }
        Explanation { strategy: chooser.balancer.name(), targets, runners }
    }
}
