//! What a choice costs at 10, 1,000 and 10,000 runners, with every strategy that has a name.
//!
//! `pick` is the strategy alone: the pick, its reservation and the giving back. `pick-known` is the same for a
//! request whose tokens, conversation and prompt are known. `route` is what comes before it on every request,
//! whatever the strategy: the snapshot of the fleet and the runners that have the model.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gateway_benches::{fleet, model};
use gateway_core::{
    Candidates, CapabilityRouter, PromptBlocks, Registry, Requirements, Router, Strategy, Workload,
};
use tokio::time::Instant;

fn requests() -> [(&'static str, Requirements); 2] {
    let plain = Requirements::model(model());
    let workload = Workload {
        prompt_tokens: Some(4_000),
        max_tokens: Some(500),
        session: Some(17),
        prefix: PromptBlocks::new((1..8_u64).collect::<Vec<_>>(), 512),
        ..Workload::default()
    };
    [("pick", plain.clone()), ("pick-known", Requirements { workload, ..plain })]
}

fn selection(criterion: &mut Criterion) {
    for runners in [10, 1_000, 10_000] {
        let registry = fleet(runners);
        let plain = Requirements::model(model());
        criterion.benchmark_group("route").bench_function(BenchmarkId::from_parameter(runners), |bencher| {
            bencher.iter(|| {
                let fleet = registry.fleet();
                let pool = CapabilityRouter.pool(&plain, &fleet);
                black_box(Candidates::new(pool, &CapabilityRouter, &plain, &[]).len());
            });
        });
        let fleet = registry.fleet();
        // As the dispatcher does: it has read the clock before.
        let now = Instant::now();
        for (name, requirements) in requests() {
            let pool = CapabilityRouter.pool(&requirements, &fleet);
            let mut group = criterion.benchmark_group(name);
            for strategy in Strategy::ALL {
                let balancer = strategy.build();
                group.bench_function(BenchmarkId::new(balancer.name(), runners), |bencher| {
                    bencher.iter(|| {
                        let candidates = Candidates::new(pool, &CapabilityRouter, &requirements, &[]).at(now);
                        drop(black_box(balancer.pick(&requirements, &candidates)));
                    });
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, selection);
criterion_main!(benches);
