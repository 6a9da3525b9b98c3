//! What a pick costs, reservation and its giving back included, at 10, 1,000 and 10,000 runners.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gateway_benches::{fleet, model};
use gateway_core::{
    Balancer, BestFit, Candidates, CapabilityRouter, LeastLoaded, Registry, Requirements, RoundRobin, Router,
};

fn selection(criterion: &mut Criterion) {
    let strategies: [Box<dyn Balancer>; 3] =
        [Box::new(RoundRobin::default()), Box::new(LeastLoaded::default()), Box::new(BestFit)];
    let requirements = Requirements::model(model());
    let mut group = criterion.benchmark_group("pick");
    for runners in [10, 1_000, 10_000] {
        let registry = fleet(runners);
        for strategy in &strategies {
            group.bench_function(BenchmarkId::new(strategy.name(), runners), |bencher| {
                bencher.iter(|| {
                    let fleet = registry.fleet();
                    let pool = CapabilityRouter.pool(&requirements, &fleet);
                    let candidates = Candidates::new(pool, &CapabilityRouter, &requirements, &[]);
                    drop(black_box(strategy.pick(&requirements, &candidates)));
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, selection);
criterion_main!(benches);
