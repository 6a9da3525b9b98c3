//! What each strategy prefers.

use std::collections::HashMap;
use std::sync::Arc;

use gateway_core::{
    Balancer, BestFit, Candidates, CapabilityRouter, InMemoryRegistry, LeastLoaded, ModelId, Registry,
    ReportedLoad, Requirements, Reservation, ResourceReport, Resources, RoundRobin, Router, RunnerId,
    RunnerSpec, RunnerStatus,
};
use gateway_testkit::{MockEngine, Script};

fn model() -> ModelId {
    ModelId::new("m").unwrap()
}

fn join(registry: &InMemoryRegistry, spec: RunnerSpec, status: RunnerStatus) {
    registry.join(spec, status, MockEngine::new(|_| Script::text("")).link());
}

fn spec(id: &str) -> RunnerSpec {
    RunnerSpec::new(RunnerId::new(id).unwrap())
}

fn status() -> RunnerStatus {
    RunnerStatus::serving([model()])
}

fn pick(registry: &InMemoryRegistry, balancer: &dyn Balancer) -> Reservation {
    let requirements = Requirements::model(model());
    let fleet = registry.fleet();
    let pool = CapabilityRouter.pool(&requirements, &fleet);
    let candidates = Candidates::new(pool, &CapabilityRouter, &requirements, &[]);
    balancer.pick(&requirements, &candidates).expect("a slot is free")
}

/// Picks so often, holding everything, and counts who was picked.
fn burst(registry: &InMemoryRegistry, balancer: &dyn Balancer, picks: usize) -> HashMap<String, usize> {
    let held: Vec<_> = (0..picks).map(|_| pick(registry, balancer)).collect();
    let mut counts = HashMap::new();
    for reservation in &held {
        *counts.entry(reservation.runner().id().to_string()).or_default() += 1;
    }
    counts
}

#[test]
fn round_robin_goes_round() {
    let registry = InMemoryRegistry::new();
    for id in ["a", "b", "c"] {
        join(&registry, spec(id), status());
    }
    let counts = burst(&registry, &RoundRobin::default(), 300);
    assert!(counts.values().all(|count| *count == 100), "{counts:?}");
}

#[test]
fn round_robin_gives_a_full_runners_share_to_all() {
    let registry = InMemoryRegistry::new();
    join(&registry, spec("a").slots(1), status());
    for id in ["b", "c", "d"] {
        join(&registry, spec(id), status());
    }
    let counts = burst(&registry, &RoundRobin::default(), 301);
    assert_eq!(counts["a"], 1);
    assert!(["b", "c", "d"].iter().all(|id| (95..=105).contains(&counts[*id])), "{counts:?}");
}

#[test]
fn least_loaded_goes_by_share_of_slots() {
    let registry = InMemoryRegistry::new();
    join(&registry, spec("small").slots(10), status());
    join(&registry, spec("large").slots(30), status());
    let counts = burst(&registry, &LeastLoaded::default(), 20);
    assert_eq!((counts["small"], counts["large"]), (5, 15));
}

#[test]
fn least_loaded_breaks_ties_without_bias() {
    let registry = InMemoryRegistry::new();
    for id in ["a", "b", "c", "d"] {
        join(&registry, spec(id), status());
    }
    let mut counts: HashMap<String, u32> = HashMap::new();
    for _ in 0..8000 {
        // Given back at once: always a tie.
        let picked = pick(&registry, &LeastLoaded::default()).runner().id().to_string();
        *counts.entry(picked).or_default() += 1;
    }
    // 2,000 each, give or take six standard deviations (39 each).
    assert!(counts.values().all(|count| (1766..=2234).contains(count)), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stale_report_herds_nobody() {
    let registry = InMemoryRegistry::new();
    for id in ["busy", "a", "b", "c"] {
        let active = if id == "busy" { 100 } else { 0 };
        let load = Some(ReportedLoad { active, queued: 0 });
        join(&registry, spec(id).slots(50), RunnerStatus { load, ..status() });
    }
    // All of the burst falls between two reports, and none of it on the runner that others keep busy.
    let counts = burst(&registry, &LeastLoaded::default(), 90);
    assert_eq!(counts.len(), 3, "{counts:?}");
    assert!(counts.values().all(|count| *count == 30), "{counts:?}");
    // Long after, the report says nothing any more.
    tokio::time::advance(gateway_core::Load::STALE).await;
    let counts = burst(&registry, &LeastLoaded::default(), 100);
    assert_eq!(counts["busy"], 25, "{counts:?}");
}

#[test]
fn best_fit_keeps_scarce_machines_free() {
    let registry = InMemoryRegistry::new();
    join(&registry, spec("gpu").machine("gpu").slots(2), status());
    join(&registry, spec("cpu").machine("cpu").slots(2), status());
    let held = [pick(&registry, &BestFit), pick(&registry, &BestFit)];
    assert!(held.iter().all(|held| held.runner().id().as_str() == "cpu"));
    let third = pick(&registry, &BestFit);
    assert_eq!(third.runner().id().as_str(), "gpu", "a scarce machine serves when nothing else can");
}

#[test]
fn best_fit_takes_the_smallest_that_is_enough() {
    let registry = InMemoryRegistry::new();
    for (id, gpus, memory_gb) in [("huge", 8.0, 640.0), ("two", 2.0, 160.0), ("one", 1.0, 80.0)] {
        let total = Some(Resources { cpus: 8.0, gpus, memory_gb });
        let resources = ResourceReport { total, available: total, ..ResourceReport::default() };
        join(&registry, spec(id).slots(1), RunnerStatus { resources, ..status() });
    }
    let held: Vec<_> = (0..3).map(|_| pick(&registry, &BestFit)).collect();
    let order: Vec<_> = held.iter().map(|held| held.runner().id().as_str()).collect();
    assert_eq!(order, ["one", "two", "huge"]);
}

#[test]
fn strategies_are_object_safe_and_named() {
    let all: [Arc<dyn Balancer>; 3] =
        [Arc::new(RoundRobin::default()), Arc::new(LeastLoaded::default()), Arc::new(BestFit)];
    assert_eq!(all.map(|balancer| balancer.name()), ["round-robin", "least-loaded", "best-fit"]);
}
