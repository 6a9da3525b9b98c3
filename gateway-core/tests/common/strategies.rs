//! Every strategy there is, and fleets to try them on. A new strategy is added to [`all`], and every test of
//! what all strategies must keep runs with it.

#![allow(dead_code, unreachable_pub)]

use std::collections::HashMap;
use std::sync::Arc;

use gateway_core::{
    Balancer, Candidates, CapabilityRouter, HealthPolicy, InMemoryRegistry, ModelId, Pipeline, Registry,
    Requirements, Reservation, Router, RunnerId, RunnerSpec, RunnerStatus, Strategy, Tried, pipeline,
};
use gateway_testkit::{MockEngine, Script};

/// Nobody is spared: a runner that joins anew would be for a while.
static HEALTH: HealthPolicy = HealthPolicy::off();

/// One of each strategy, and a mixture.
pub fn all() -> Vec<Arc<dyn Balancer>> {
    let mixed = Pipeline::builder("mixed").scorer(pipeline::LoadScorer, 1.0).build().unwrap();
    Strategy::ALL.iter().map(|strategy| strategy.build()).chain([Arc::new(mixed) as _]).collect()
}

pub fn model() -> ModelId {
    ModelId::new("m").unwrap()
}

pub fn spec(id: &str) -> RunnerSpec {
    RunnerSpec::new(RunnerId::new(id).unwrap())
}

pub fn status() -> RunnerStatus {
    RunnerStatus::serving([model()])
}

pub fn join(registry: &InMemoryRegistry, spec: RunnerSpec, status: RunnerStatus) {
    registry.join(spec, status, MockEngine::new(|_| Script::text("")).link());
}

/// A fleet of `r0`, `r1` and so on with so many slots each; 0: they do not say.
pub fn fleet(slots: &[u32]) -> InMemoryRegistry {
    let registry = InMemoryRegistry::new();
    for (number, slots) in slots.iter().enumerate() {
        join(&registry, spec(&format!("r{number}")).slots(*slots), status());
    }
    registry
}

pub fn pick_for(
    registry: &InMemoryRegistry,
    balancer: &dyn Balancer,
    requirements: &Requirements,
    tried: &[Tried],
) -> Option<Reservation> {
    let fleet = registry.fleet();
    let pool = CapabilityRouter.pool(requirements, &fleet);
    let candidates = Candidates::new(pool, &CapabilityRouter, requirements, tried).under(&HEALTH);
    balancer.pick(requirements, &candidates)
}

pub fn pick(registry: &InMemoryRegistry, balancer: &dyn Balancer) -> Option<Reservation> {
    pick_for(registry, balancer, &Requirements::model(model()), &[])
}

/// How often each runner is picked when every pick is given back at once.
pub fn counts(registry: &InMemoryRegistry, balancer: &dyn Balancer, picks: u32) -> HashMap<String, u32> {
    let mut counts = HashMap::new();
    for _ in 0..picks {
        let picked = pick(registry, balancer).expect("a slot is free");
        *counts.entry(picked.runner().id().to_string()).or_default() += 1;
    }
    counts
}

/// Picks so often, holding everything, and counts who was picked.
pub fn burst(registry: &InMemoryRegistry, balancer: &dyn Balancer, picks: usize) -> HashMap<String, usize> {
    let held: Vec<_> = (0..picks).map(|_| pick(registry, balancer).expect("a slot is free")).collect();
    let mut counts = HashMap::new();
    for reservation in &held {
        *counts.entry(reservation.runner().id().to_string()).or_default() += 1;
    }
    counts
}

/// Whether so many draws of equals look like chance: the chi-square statistic stays below a bound that it
/// passes once in a hundred million times (Wilson and Hilferty's approximation of the quantile).
pub fn is_even<'c>(counts: impl IntoIterator<Item = &'c u32>, of: usize) -> bool {
    let counts: Vec<f64> = counts.into_iter().map(|count| f64::from(*count)).collect();
    let expected = counts.iter().sum::<f64>() / of as f64;
    let absent = (of - counts.len()) as f64 * expected;
    let statistic: f64 =
        counts.iter().map(|count| (count - expected).powi(2) / expected).sum::<f64>() + absent;
    let freedom = (of - 1) as f64;
    let spread = 2.0 / (9.0 * freedom);
    statistic < freedom * (1.0 - spread + 5.6 * spread.sqrt()).powi(3)
}
