use std::collections::HashMap;
use std::sync::Arc;

use super::{Balancer, Candidates, Score};
use crate::dispatch::Attempt;
use crate::names::ModelId;
use crate::router::Requirements;
use crate::runner::{Reservation, Runner};

/// A strategy for each model, and one for all others.
///
/// Use it when models differ in what is scarce: a chat model gains from conversations that stay where they
/// were, an embedding model only from even load. Models are told apart by the name that is asked for, so one
/// with two names needs an entry for each. Costs one look into a hash map more than the strategy itself. The
/// reason that a choice is shown with is the model's strategy, unless that gives one of its own.
///
/// ```
/// use std::sync::Arc;
/// use gateway_core::{LeastLoaded, ModelId, PerModel, RoundRobin};
///
/// let strategy = PerModel::new(Arc::new(LeastLoaded::default()))
///     .model(ModelId::new("embedder")?, Arc::new(RoundRobin::default()));
/// # Ok::<(), gateway_core::InvalidName>(())
/// ```
pub struct PerModel {
    others: Arc<dyn Balancer>,
    models: HashMap<ModelId, Arc<dyn Balancer>>,
}

impl PerModel {
    /// One strategy for all models, until some get their own.
    pub fn new(others: Arc<dyn Balancer>) -> Self {
        Self { others, models: HashMap::new() }
    }

    /// Sets a model's strategy, in place of the one it had.
    pub fn model(mut self, model: ModelId, strategy: Arc<dyn Balancer>) -> Self {
        self.models.insert(model, strategy);
        self
    }

    /// The strategy for a model, or for requests that name none.
    pub fn strategy(&self, model: Option<&ModelId>) -> &Arc<dyn Balancer> {
        model.and_then(|model| self.models.get(model)).unwrap_or(&self.others)
    }
}

impl Balancer for PerModel {
    fn name(&self) -> &'static str {
        "per-model"
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let strategy = self.strategy(requirements.model.as_ref());
        let reservation = strategy.pick(requirements, candidates)?;
        let is_told = reservation.reason().is_some();
        Some(if is_told { reservation } else { reservation.because(strategy.name()) })
    }

    fn reads_prompts(&self) -> bool {
        self.others.reads_prompts() || self.models.values().any(|strategy| strategy.reads_prompts())
    }

    fn scores(&self, requirements: &Requirements, runner: &Runner, scores: &mut Vec<Score>) {
        self.strategy(requirements.model.as_ref()).scores(requirements, runner, scores);
    }

    fn observe(&self, attempt: &Attempt<'_>) {
        self.strategy(attempt.model).observe(attempt);
    }
}

impl std::fmt::Debug for PerModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.models.iter().map(|(model, strategy)| (model.as_str(), strategy.name()));
        f.debug_map().entries(names).entry(&"*", &self.others.name()).finish()
    }
}
