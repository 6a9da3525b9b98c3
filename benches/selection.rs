//! What a choice costs at 10, 1,000 and 10,000 runners.
//!
//! `pick` is the strategy alone: the pick, its reservation and the giving back. `route` is what comes before
//! it on every request, whatever the strategy: the snapshot of the fleet and the runners that have the model.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gateway_benches::{fleet, model};
use gateway_core::{
    Balancer, BestFit, Candidates, CapabilityRouter, LeastLoaded, LeastTokens, PeakEwma, PowerOfTwo, Random,
    Registry, Requirements, RoundRobin, Router, WeightedRoundRobin,
};

/// Every strategy. A new one is added here.
fn strategies() -> Vec<Box<dyn Balancer>> {
    vec![
        Box::new(RoundRobin::default()),
        Box::new(WeightedRoundRobin),
        Box::new(Random),
        Box::new(PowerOfTwo),
        Box::new(PeakEwma),
        Box::new(LeastLoaded::default()),
        Box::new(LeastTokens::default()),
        Box::new(BestFit),
    ]
}

fn selection(criterion: &mut Criterion) {
    let requirements = Requirements::model(model());
    for runners in [10, 1_000, 10_000] {
        let registry = fleet(runners);
        criterion.benchmark_group("route").bench_function(BenchmarkId::from_parameter(runners), |bencher| {
            bencher.iter(|| {
                let fleet = registry.fleet();
                let pool = CapabilityRouter.pool(&requirements, &fleet);
                black_box(Candidates::new(pool, &CapabilityRouter, &requirements, &[]).len());
            });
        });
        let fleet = registry.fleet();
        let pool = CapabilityRouter.pool(&requirements, &fleet);
        let mut group = criterion.benchmark_group("pick");
        for strategy in strategies() {
            group.bench_function(BenchmarkId::new(strategy.name(), runners), |bencher| {
                bencher.iter(|| {
                    let candidates = Candidates::new(pool, &CapabilityRouter, &requirements, &[]);
                    drop(black_box(strategy.pick(&requirements, &candidates)));
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, selection);
criterion_main!(benches);
