//! What a request may be served with: the model that it names, or those that the name stands for.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::body::RequestBody;
use crate::names::ModelId;
use crate::router::Requirements;
use crate::routes::{ModelRoutes, Target};
use crate::runner::Runner;

/// Made once for each request; only names with a route cost anything.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// As the client said it.
    named: Requirements,
    targets: Option<Arc<[Target]>>,
    /// The same for each target.
    routed: Vec<Requirements>,
    arrived: Instant,
}

/// One of the models that will do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'p> {
    pub(crate) requirements: &'p Requirements,
    target: Option<&'p Target>,
}

impl Plan {
    pub(crate) fn new(named: Requirements, routes: &ModelRoutes, arrived: Instant) -> Self {
        let targets = match &named.model {
            Some(model) if !routes.is_empty() => routes.route(model.as_str()).cloned(),
            _ => None,
        };
        let routed = targets.iter().flat_map(|targets| targets.iter());
        let routed = routed.map(|target| Requirements { model: Some(target.model.clone()), ..named.clone() });
        Self { routed: routed.collect(), targets, named, arrived }
    }

    /// What a wish is now, if time has passed on which it depends: strategies are to see what is left.
    pub(crate) fn by_now(&self, wish: &Wish<'_>, now: Instant) -> Option<Requirements> {
        let deadline = wish.requirements.workload.deadline?;
        let passed = now.saturating_duration_since(self.arrived);
        (!passed.is_zero()).then(|| {
            let mut requirements = wish.requirements.clone();
            requirements.workload.deadline = Some(deadline.saturating_sub(passed));
            requirements
        })
    }

    /// What the client asked for.
    pub(crate) fn named(&self) -> &Requirements {
        &self.named
    }

    /// For which model to wait: an alias waits where its model does, lest each name be a line of its own. A
    /// class is one, for there is more that can serve it.
    pub(crate) fn line(&self) -> &Option<ModelId> {
        let mut wishes = self.wishes(false);
        match (wishes.next(), wishes.next()) {
            (Some(only), None) => &only.requirements.model,
            _ => &self.named.model,
        }
    }

    /// The same for who would take a fallback: the line of the first. `None` without fallbacks.
    pub(crate) fn fallback_line(&self) -> Option<&Option<ModelId>> {
        self.wishes(true).next().map(|wish| &wish.requirements.model)
    }

    /// Those that the name stands for, and behind them the fallbacks if wanted.
    pub(crate) fn all_wishes(&self, with_fallbacks: bool) -> impl Iterator<Item = Wish<'_>> {
        self.wishes(false).chain(self.wishes(true).filter(move |_| with_fallbacks))
    }

    /// The model by the name that the client used.
    pub(crate) fn itself(&self) -> Wish<'_> {
        Wish { requirements: &self.named, target: None }
    }

    /// The models that the name stands for, best first; fallbacks are asked for apart.
    pub(crate) fn wishes(&self, fallbacks: bool) -> impl Iterator<Item = Wish<'_>> {
        let itself = Some(self.itself()).filter(|_| self.targets.is_none() && !fallbacks);
        let targets = self.targets.as_deref().unwrap_or_default();
        let routed =
            targets.iter().zip(&self.routed).filter(move |(target, _)| target.is_fallback == fallbacks);
        let routed = routed.map(|(target, requirements)| Wish { requirements, target: Some(target) });
        itself.into_iter().chain(routed)
    }
}

impl Wish<'_> {
    pub(crate) fn model(&self) -> Option<&ModelId> {
        self.requirements.model.as_ref()
    }

    /// The body with the name by which the runner knows the model.
    pub(crate) fn put_into(&self, body: RequestBody, runner: &Runner) -> RequestBody {
        let local: Option<&Bytes> = self.model().and_then(|model| runner.rename(model));
        match local.or(self.target.map(|target| &target.json)) {
            Some(name) => body.rename_model(name),
            None => body,
        }
    }
}
