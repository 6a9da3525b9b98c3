//! A pick of a pipeline allocates nothing, whatever it is put together from.

mod fleet;

use fleet::{TestFleet, model, spec, status};
use gateway_core::pipeline::{
    CostScorer, DeadlineFilter, FinishScorer, LabelFilter, LabelScorer, LatencyScorer, LoadScorer,
    MaxLoadFilter, Picker, PipelineBuilder, QueueScorer, SessionScorer, TokensScorer, WarmFilter, WarmScorer,
};
use gateway_core::{
    Balancer, Candidates, CapabilityRouter, PerModel, Pipeline, Pool, Price, Registry, ReportedLoad,
    Requirements, Resources, Router, RunnerStatus, Workload,
};

/// Of every kind: priced and not, with slots and without, near and far.
fn runners(count: u32) -> TestFleet {
    let fleet = TestFleet::new();
    for number in 0..count {
        let spec = spec(&format!("r{number:03}")).slots(number % 5);
        let spec = if number % 2 == 0 { spec.label("zone", "eu") } else { spec };
        let spec = if number % 3 == 0 { spec.price(Price::PerHour(2.0)) } else { spec };
        let mut status: RunnerStatus = status();
        status.resources.total = Some(Resources { cpus: 64.0, gpus: 8.0, memory_gb: 512.0 });
        status.resources.available = status.resources.total.filter(|_| number % 7 != 0);
        status.load = (number % 4 == 0).then_some(ReportedLoad { active: number % 3, queued: number % 2 });
        fleet.join(spec, status);
    }
    fleet
}

fn everything(picker: Picker) -> PipelineBuilder {
    let builder = Pipeline::builder("everything")
        .filter(DeadlineFilter)
        .filter(MaxLoadFilter::new(0.9))
        .prefer(LabelFilter::new("zone", "eu"))
        .prefer(WarmFilter)
        .scorer(LoadScorer, 1.0)
        .scorer(QueueScorer, 1.0)
        .scorer(TokensScorer, 1.0)
        .scorer(LatencyScorer, 1.0)
        .scorer(FinishScorer, 1.0)
        .scorer(CostScorer, 1.0)
        .scorer(WarmScorer, 1.0)
        .scorer(LabelScorer::new("zone", "us"), 1.0)
        .picker(picker);
    if matches!(picker, Picker::BestOf(_)) { builder } else { builder.scorer(SessionScorer, 1.0) }
}

fn requests() -> [Requirements; 3] {
    let workload = Workload {
        prompt_tokens: Some(3_000),
        max_tokens: Some(400),
        session: Some(7),
        deadline: Some(std::time::Duration::from_secs(60)),
        ..Workload::default()
    };
    let long = Requirements { workload, ..fleet::needs() };
    let resources = Some(Resources { cpus: 1.0, gpus: 1.0, memory_gb: 1.0 });
    [fleet::needs(), long.clone(), Requirements { resources, ..long }]
}

fn allocations(fleet: &TestFleet, strategy: &dyn Balancer, needs: &Requirements, as_set: bool) -> u64 {
    let fleet = fleet.registry.fleet();
    let mut picked = 0;
    let mut pick = || {
        let pool = CapabilityRouter.pool(needs, &fleet);
        let pool = if as_set { pool } else { Pool::slice(pool.runners(), false) };
        let candidates = Candidates::new(pool, &CapabilityRouter, needs, &[]);
        picked += u32::from(strategy.pick(needs, &candidates).is_some());
    };
    let counted = allocation_counter::measure(|| (0..20).for_each(|_| pick()));
    assert_eq!(picked, 20, "{}", strategy.name());
    counted.count_total
}

#[test]
fn no_mixture_allocates() {
    for picker in [Picker::Best, Picker::Weighted, Picker::BestOf(2), Picker::BestOf(16)] {
        let pipeline = everything(picker).build().unwrap();
        let per_model = PerModel::new(everything(picker).build().map(std::sync::Arc::new).unwrap())
            .model(model(), std::sync::Arc::new(everything(picker).build().unwrap()));
        let strategies: [&dyn Balancer; 2] = [&pipeline, &per_model];
        for strategy in strategies {
            for count in [2, 10, 300] {
                let fleet = runners(count);
                for (number, needs) in requests().iter().enumerate() {
                    for as_set in [true, false] {
                        let count = allocations(&fleet, strategy, needs, as_set);
                        assert_eq!(count, 0, "{picker:?}, request {number}, {}", strategy.name());
                    }
                }
            }
        }
    }
}
