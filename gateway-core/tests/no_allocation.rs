//! A pick allocates nothing, whatever the strategy and however hard the choice is.

#[path = "common/strategies.rs"]
mod list;

use gateway_core::{
    Balancer, Candidates, Capability, CapabilityRouter, Feature, Features, HealthPolicy, InMemoryRegistry,
    Labels, LeastLoaded, MachineKind, PromptBlocks, Registry, ReportedLoad, Requirements, Resources, Router,
    RunnerSpec, RunnerStatus, Tried, Workload,
};
use list::{all, join, model, spec, status};

/// Some that fit, some that do not, of every kind.
fn fleet(runners: u32) -> InMemoryRegistry {
    let registry = InMemoryRegistry::new();
    for number in 0..runners {
        let spec: RunnerSpec = spec(&format!("r{number:03}")).slots(number % 5);
        let spec = if number % 2 == 0 { spec.label("zone", "eu") } else { spec };
        let spec = if number % 4 == 0 { spec.lacks(Features::TOOLS) } else { spec };
        let spec = spec.machine(if number % 3 == 0 { "GPU server" } else { "cpu" });
        let mut status: RunnerStatus = status();
        let all = Some(Resources { cpus: 64.0, gpus: 8.0, memory_gb: 512.0 });
        status.resources.total = all;
        status.resources.available = all.filter(|_| number % 7 != 0);
        status.load = (number % 4 == 0).then_some(ReportedLoad { active: number % 3, queued: 0 });
        join(&registry, spec, status);
    }
    registry
}

fn requests() -> Vec<(&'static str, Requirements)> {
    let plain = Requirements::model(model());
    let workload = Workload {
        prompt_tokens: Some(3_000),
        max_tokens: Some(400),
        session: Some(7),
        prefix: PromptBlocks::new([1, 2, 3, 4, 5, 6], 512),
        deadline: Some(std::time::Duration::from_secs(30)),
    };
    let with_tools = Requirements { features: Feature::Tools.into(), ..plain.clone() };
    let with_all_can = Requirements { features: Feature::Stop.into(), ..plain.clone() };
    let picky = Requirements {
        features: Feature::Functions.into(),
        capability: Some(Capability::LargeChat),
        machine: Some(MachineKind::Gpu),
        labels: Labels::from([("zone".to_owned(), "eu".to_owned())]),
        resources: Some(Resources { cpus: 1.0, gpus: 1.0, memory_gb: 1.0 }),
        context_tokens: Some(3_400),
        workload: workload.clone(),
        ..plain.clone()
    };
    vec![
        ("plain", plain.clone()),
        ("with tools", with_tools),
        ("with what all can do", with_all_can),
        ("long", Requirements { workload, ..plain }),
        ("picky", picky),
        ("any model", Requirements::default()),
    ]
}

fn allocations(
    registry: &InMemoryRegistry,
    balancer: &dyn Balancer,
    needs: &Requirements,
    tried: &[Tried],
) -> u64 {
    static HEALTH: HealthPolicy = HealthPolicy::DEFAULT;
    let fleet = registry.fleet();
    let pick_by = |balancer: &dyn Balancer| {
        let pool = CapabilityRouter.pool(needs, &fleet);
        let candidates = Candidates::new(pool, &CapabilityRouter, needs, tried).under(&HEALTH);
        balancer.pick(needs, &candidates)
    };
    // What is prepared for a fleet is made by the first who needs it after a change. Some need the board only
    // when they do not find anybody else.
    drop(pick_by(&LeastLoaded::default()));
    // What is kept of runners is made for some at a time, when the first of them is looked at, and not all are looked at
    // each time.
    (0..20).for_each(|_| drop(pick_by(balancer)));
    let counted = allocation_counter::measure(|| {
        for _ in 0..50 {
            drop(pick_by(balancer));
        }
    });
    counted.count_total
}

#[test]
fn no_strategy_allocates() {
    for balancer in all() {
        for runners in [1, 10, 600] {
            let registry = fleet(runners);
            for (name, needs) in requests() {
                let count = allocations(&registry, &*balancer, &needs, &[]);
                assert_eq!(count, 0, "{} of {runners} for a {name} request", balancer.name());
            }
        }
    }
}

#[test]
fn nor_does_it_when_it_tries_again_or_nobody_is_free() {
    for balancer in all() {
        let registry = fleet(40);
        let snapshot = registry.fleet();
        let tried: Vec<_> = snapshot.runners()[..3]
            .iter()
            .map(|runner| Tried { runner: runner.key().clone(), sent: true })
            .collect();
        for (name, needs) in requests() {
            assert_eq!(allocations(&registry, &*balancer, &needs, &tried), 0, "{} {name}", balancer.name());
        }
        let limited = snapshot.runners().iter().filter(|runner| runner.spec().slots.is_some());
        let held: Vec<_> = limited.flat_map(|runner| std::iter::from_fn(|| runner.try_reserve())).collect();
        for (name, needs) in requests() {
            assert_eq!(allocations(&registry, &*balancer, &needs, &[]), 0, "{} {name}", balancer.name());
        }
        drop(held);
    }
}

/// The counter counts.
#[test]
fn an_allocation_would_be_seen() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![1])));
    assert_eq!(counted.count_total, 1);
}
