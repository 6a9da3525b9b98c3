//! Session and prefix affinity: the same key on the same runner, unless that is busier than the others by more
//! than a quarter.

#[path = "common/strategies.rs"]
mod list;

use std::collections::{HashMap, HashSet};

use gateway_core::{
    Balancer, InMemoryRegistry, LeaveReason, PrefixAffinity, PromptBlocks, Registry, Requirements,
    Reservation, RunnerChange, SessionAffinity, Workload,
};
use list::{fleet, join, model, pick_for, spec, status};
use proptest::prelude::*;

fn session(key: u64) -> Requirements {
    let workload = Workload { session: Some(key), ..Workload::default() };
    Requirements { workload, ..Requirements::model(model()) }
}

fn prompt(blocks: &[u64]) -> Requirements {
    let workload = Workload { prefix: PromptBlocks::new(blocks.to_vec(), 128), ..Workload::default() };
    Requirements { workload, ..Requirements::model(model()) }
}

fn pick(registry: &InMemoryRegistry, balancer: &dyn Balancer, requirements: &Requirements) -> Reservation {
    pick_for(registry, balancer, requirements, &[]).expect("a slot is free")
}

fn home(registry: &InMemoryRegistry, balancer: &dyn Balancer, requirements: &Requirements) -> String {
    pick(registry, balancer, requirements).runner().id().to_string()
}

#[test]
fn a_session_stays_where_it_is_and_only_those_of_a_runner_that_leaves_move() {
    let registry = fleet(&[8; 10]);
    let balancer = SessionAffinity::default();
    let homes: Vec<String> = (0..1_000).map(|key| home(&registry, &balancer, &session(key))).collect();
    assert_eq!(homes.iter().collect::<HashSet<_>>().len(), 10, "all have a share");
    let key = registry.fleet().runner("r3").unwrap().key().clone();
    registry.leave(&key, LeaveReason::Disconnected);
    for (key, before) in (0..).zip(&homes) {
        let now = home(&registry, &balancer, &session(key));
        assert!(now == *before || before == "r3", "{key} moved from {before} to {now}");
    }
    join(&registry, spec("r3").slots(8), status());
    for (key, before) in (0..).zip(&homes) {
        assert_eq!(home(&registry, &balancer, &session(key)), *before, "it is as it was");
    }
}

#[test]
fn prompts_that_begin_alike_go_to_one_runner() {
    let registry = fleet(&[8; 10]);
    let balancer = PrefixAffinity::default();
    assert!(balancer.reads_prompts());
    let alike = |end: u64| prompt(&[1, 2, 3, 4, end, end + 1]);
    let homes: HashSet<String> = (0..100).map(|end| home(&registry, &balancer, &alike(end))).collect();
    assert_eq!(homes.len(), 1);
    let others: HashSet<String> =
        (0..100).map(|first| home(&registry, &balancer, &prompt(&[first, 2, 3, first]))).collect();
    assert!(others.len() > 5, "{others:?}");
}

#[test]
fn a_favourite_does_not_drown_and_says_so() {
    let registry = fleet(&[100; 10]);
    let balancer = SessionAffinity::default();
    let held: Vec<Reservation> = (0..500).map(|_| pick(&registry, &balancer, &session(7))).collect();
    let mut counts: HashMap<String, u32> = HashMap::new();
    held.iter().for_each(|one| *counts.entry(one.runner().id().to_string()).or_default() += 1);
    let most = counts.values().max().unwrap();
    assert!(*most <= 63, "1.25 times the mean of 50, rounded up: {counts:?}");
    assert_eq!(held[0].reason(), Some("session"));
    assert!(held.iter().any(|one| one.reason() == Some("overflow")));
}

#[test]
fn those_who_drain_have_no_part_in_the_mean() {
    let registry = fleet(&[100; 10]);
    let snapshot = registry.fleet();
    for runner in &snapshot.runners()[..5] {
        assert!(registry.update(runner.key(), RunnerChange::Drain(true)));
    }
    let balancer = SessionAffinity::default();
    let held: Vec<Reservation> = (0..200).map(|key| pick(&registry, &balancer, &session(key))).collect();
    // Forty for each on the average, and 50 at most. By the mean of all ten the bound would be 25, and half of the
    // requests would go to whoever comes first.
    let stayed = held.iter().filter(|one| one.reason() == Some("session")).count();
    assert!(stayed > 70, "{stayed}");
    for runner in &snapshot.runners()[5..] {
        assert!(runner.load().in_flight <= 50, "{:?}", runner.load());
    }
}

#[test]
fn requests_without_a_key_are_spread() {
    let registry = fleet(&[8; 4]);
    let held: Vec<Reservation> = (0..32)
        .map(|_| pick(&registry, &SessionAffinity::default(), &Requirements::model(model())))
        .collect();
    assert_eq!(held.len(), 32);
}

proptest! {
    /// At every pick the runner that is chosen stays within 1.25 times the mean (the new request included),
    /// rounded up, as long as any runner does.
    #[test]
    fn never_beyond_the_bound(
        slots in prop::collection::vec(1..20_u32, 2..20),
        steps in prop::collection::vec((0..6_u64, any::<bool>(), any::<prop::sample::Index>()), 1..200),
    ) {
        let registry = fleet(&slots);
        let balancer = SessionAffinity::default();
        let all: u32 = slots.iter().sum();
        let mut held: Vec<Reservation> = Vec::new();
        for (key, give_back, which) in steps {
            if give_back && !held.is_empty() {
                drop(held.swap_remove(which.index(held.len())));
                continue;
            }
            let share = 1.25 * (held.len() + 1) as f64 / f64::from(all);
            let bound = |slots: u32| (share * f64::from(slots)).ceil() as u32;
            let fleet = registry.fleet();
            let is_below = |runner: &std::sync::Arc<gateway_core::Runner>| {
                let load = runner.load();
                let slots = load.slots.unwrap().get();
                load.in_flight < bound(slots).min(slots)
            };
            let anybody = fleet.runners().iter().any(is_below);
            let Some(picked) = pick_for(&registry, &balancer, &session(key), &[]) else {
                prop_assert_eq!(held.len(), all as usize, "nobody is picked though somebody has room");
                continue;
            };
            let load = picked.runner().load();
            let slots = load.slots.unwrap().get();
            prop_assert!(load.in_flight <= bound(slots) || !anybody, "{load:?} of {}", bound(slots));
            held.push(picked);
        }
    }
}
