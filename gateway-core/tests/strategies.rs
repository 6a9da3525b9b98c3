//! What every strategy must keep, and what each of them is for.

#[path = "common/strategies.rs"]
mod list;

use std::collections::HashMap;
use std::time::Duration;

use gateway_core::{
    Balancer, Labels, LeastLoaded, LeastTokens, Load, PeakEwma, PowerOfTwo, Random, Registry, ReportedLoad,
    Requirements, Reservation, ResourceReport, Resources, RoundRobin, RunnerChange, RunnerStatus,
    WeightedRoundRobin,
};
use list::{all, burst, counts, fleet, is_even, join, model, pick, pick_for, spec, status};
use proptest::prelude::*;

#[test]
fn names_are_different_and_fit_into_a_header() {
    let names: Vec<_> = all().iter().map(|balancer| balancer.name()).collect();
    for (at, name) in names.iter().enumerate() {
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{name}");
        assert!(!names[..at].contains(name), "{name} is there twice");
    }
}

#[test]
fn equals_are_picked_as_often() {
    for balancer in all() {
        let registry = fleet(&[4, 4, 4, 4, 4]);
        let counts = counts(&registry, &*balancer, 5_000);
        assert!(is_even(counts.values(), 5), "{}: {counts:?}", balancer.name());
    }
}

/// The two that are free stand side by side, so whoever takes the next free one after a full one would favour
/// the first of them.
#[test]
fn full_neighbours_give_nobody_an_advantage() {
    for balancer in all() {
        let mut slots = [1; 40];
        (slots[20], slots[21]) = (2, 2);
        let registry = fleet(&slots);
        let held: Vec<Reservation> =
            registry.fleet().runners().iter().map(|runner| runner.try_reserve().unwrap()).collect();
        let counts = counts(&registry, &*balancer, 4_000);
        assert!(counts.contains_key("r20") && counts.contains_key("r21"), "{counts:?}");
        assert!(is_even(counts.values(), 2), "{}: {counts:?}", balancer.name());
        drop(held);
    }
}

#[test]
fn a_request_with_needs_is_served_by_whoever_meets_them() {
    for balancer in all() {
        let registry = fleet(&[4; 20]);
        let free = Some(Resources { cpus: 8.0, gpus: 0.0, memory_gb: 64.0 });
        let resources = ResourceReport { total: free, available: free, ..ResourceReport::default() };
        join(&registry, spec("fit").slots(2).label("zone", "eu"), RunnerStatus { resources, ..status() });
        join(&registry, spec("labelled").slots(2).label("zone", "eu"), status());
        let requirements = Requirements {
            labels: Labels::from([("zone".to_owned(), "eu".to_owned())]),
            resources: Some(Resources { cpus: 4.0, gpus: 0.0, memory_gb: 8.0 }),
            ..Requirements::model(model())
        };
        let pick = || pick_for(&registry, &*balancer, &requirements, &[]);
        let held = [pick().unwrap(), pick().unwrap()];
        assert!(held.iter().all(|held| held.runner().id().as_str() == "fit"), "{}", balancer.name());
        assert!(pick().is_none(), "{} promises what is promised already", balancer.name());
    }
}

#[test]
fn nobody_is_nobody() {
    for balancer in all() {
        let registry = fleet(&[]);
        assert!(pick(&registry, &*balancer).is_none());
        join(&registry, spec("other"), RunnerStatus::serving([gateway_core::ModelId::new("x").unwrap()]));
        assert!(pick(&registry, &*balancer).is_none(), "{}", balancer.name());
    }
}

/// A report that a runner is idle is as old as it may be, and a hundred requests come at once.
#[tokio::test(start_paused = true)]
async fn an_old_report_of_an_idle_runner_herds_nobody() {
    for balancer in all() {
        let registry = fleet(&[]);
        for number in 0..5 {
            let active = if number == 0 { 0 } else { 4 };
            let load = Some(ReportedLoad { active, queued: 0 });
            join(&registry, spec(&format!("r{number}")).slots(64), RunnerStatus { load, ..status() });
        }
        tokio::time::advance(Load::STALE - Duration::from_secs(1)).await;
        let counts = burst(&registry, &*balancer, 100);
        // 20 each, and what the others were said to have more.
        assert!(counts["r0"] <= 38, "{}: {counts:?}", balancer.name());
        assert_eq!(counts.len(), 5, "{}: {counts:?}", balancer.name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Runners join, are replaced, drain and leave, requests begin and end, in whatever order: what is counted
    /// is what is held, no slot is held twice, who drains gets nothing, and nobody is refused while a slot is
    /// free.
    #[test]
    fn slots_hold_through_every_change_of_the_fleet(
        which in 0..all().len(),
        slots in proptest::collection::vec(0..4_u32, 1..6),
        ops in proptest::collection::vec((0..12_u8, 0..6_usize), 1..120),
    ) {
        let balancer = all().swap_remove(which);
        let registry = fleet(&slots);
        let mut held: Vec<Reservation> = Vec::new();
        for (op, number) in ops {
            let snapshot = registry.fleet();
            let runner = snapshot.runners().get(number);
            match op {
                0..7 => {
                    let has_room = snapshot.runners().iter().any(|runner| {
                        runner.is_available() && !runner.load().is_full()
                    });
                    let picked = pick(&registry, &*balancer);
                    prop_assert_eq!(picked.is_some(), has_room, "{}", balancer.name());
                    if let Some(picked) = picked {
                        prop_assert!(!picked.runner().is_draining());
                        held.push(picked);
                    }
                }
                7..9 if !held.is_empty() => drop(held.swap_remove(number % held.len())),
                9 => {
                    if let Some(runner) = runner {
                        registry.update(runner.key(), RunnerChange::Drain(!runner.is_draining()));
                    }
                }
                10 => {
                    let id = runner.map_or_else(|| format!("new{number}"), |runner| runner.id().to_string());
                    join(&registry, spec(&id).slots(number as u32), status());
                }
                _ => {
                    if let Some(runner) = runner {
                        registry.leave(runner.key(), gateway_core::LeaveReason::Disconnected);
                    }
                }
            }
            // Those who hold a slot may be on a registration that is gone.
            let mut of: HashMap<_, u32> = HashMap::new();
            for held in &held {
                *of.entry(held.runner().key().clone()).or_default() += 1;
            }
            let everyone = held.iter().map(|held| held.runner().clone());
            for runner in everyone.chain(registry.fleet().runners().iter().cloned()) {
                let load = runner.load();
                prop_assert_eq!(load.in_flight, of.get(runner.key()).copied().unwrap_or(0));
                prop_assert!(load.slots.is_none_or(|slots| load.in_flight <= slots.get()));
            }
        }
    }

    /// Exact: whoever is picked has the smallest share of slots in use of all that have room, as a plain look
    /// at everybody finds it.
    #[test]
    fn least_loaded_is_exact(
        runners in proptest::collection::vec((0..40_u32, 0..40_u32, proptest::option::of(0..90_u32)), 1..40),
    ) {
        let registry = fleet(&[]);
        let mut held = Vec::new();
        for (number, (slots, taken, reported)) in runners.iter().enumerate() {
            let id = format!("r{number}");
            join(&registry, spec(&id).slots(*slots), status());
            let fleet = registry.fleet();
            let runner = fleet.runner(&id).unwrap();
            held.extend((0..*taken).map_while(|_| runner.try_reserve()));
            let load = reported.map(|active| ReportedLoad { active, queued: 0 });
            registry.update(runner.key(), RunnerChange::Status(RunnerStatus { load, ..status() }));
        }
        for _ in 0..30 {
            let fleet = registry.fleet();
            let shares = fleet.runners().iter().map(|runner| runner.load()).filter(|load| !load.is_full());
            let shares = shares.map(|load| {
                (load.estimate(), load.slots.map_or(LeastLoaded::ASSUMED_SLOTS, |slots| slots.get()))
            });
            let least = shares.reduce(|a, b| if b.0 * a.1 < a.0 * b.1 { b } else { a });
            let Some(picked) = pick(&registry, &LeastLoaded::default()) else {
                prop_assert!(least.is_none());
                break;
            };
            let load = picked.runner().load();
            let slots = load.slots.map_or(LeastLoaded::ASSUMED_SLOTS, |slots| slots.get());
            let (of, among) = least.unwrap();
            prop_assert_eq!((load.estimate() - 1) * among, of * slots);
            held.push(picked);
        }
    }
}

/// More runners than are looked at one by one, while requests begin and end, runners drain and report: what is
/// remembered of them is never out of date.
#[test]
fn least_loaded_is_exact_in_large_fleets() {
    let registry = fleet(&(0..700).map(|number| 1 + number % 7).collect::<Vec<_>>());
    let balancer = LeastLoaded::default();
    let share = |load: &Load| f64::from(load.estimate()) / f64::from(load.slots.unwrap().get());
    let mut random = fastrand::Rng::with_seed(11);
    let mut held: Vec<Reservation> = Vec::new();
    for _ in 0..3_000 {
        let snapshot = registry.fleet();
        let runner = &snapshot.runners()[random.usize(..700)];
        match random.u8(..8) {
            0..2 if !held.is_empty() => drop(held.swap_remove(random.usize(..held.len()))),
            2 => held.extend(runner.try_reserve()),
            3 => {
                let load = Some(ReportedLoad { active: random.u32(..9), queued: 0 });
                registry.update(runner.key(), RunnerChange::Status(RunnerStatus { load, ..status() }));
            }
            4 => {
                registry.update(runner.key(), RunnerChange::Drain(!runner.is_draining()));
            }
            _ => {
                let open = snapshot.runners().iter().filter(|runner| runner.is_available());
                let loads = open.map(|runner| runner.load()).filter(|load| !load.is_full());
                let least = loads.map(|load| share(&load)).min_by(f64::total_cmp).unwrap();
                let picked = pick(&registry, &balancer).unwrap();
                let load = picked.runner().load();
                let before = Load { in_flight: load.in_flight - 1, ..load };
                assert_eq!(share(&before), least, "{:?}", picked.runner());
                held.push(picked);
            }
        }
    }
    // When nobody has room that is found out as well, and so is the first slot that is given back.
    held.extend(std::iter::from_fn(|| pick(&registry, &balancer)));
    let runners = registry.fleet().runners().to_vec();
    assert!(runners.iter().all(|runner| runner.is_draining() || runner.load().is_full()));
    let back = held.swap_remove(random.usize(..held.len()));
    let id = back.runner().id().clone();
    let was_draining = back.runner().is_draining();
    drop(back);
    assert_eq!(
        pick(&registry, &balancer).map(|picked| picked.runner().id().clone()),
        (!was_draining).then_some(id)
    );
}

#[test]
fn large_fleets_draw_evenly_too() {
    let registry = fleet(&[2; 400]);
    let counts = counts(&registry, &LeastLoaded::default(), 40_000);
    assert!(is_even(counts.values(), 400), "{counts:?}");
}

/// A report that has grown stale no longer counts for those who look at two either.
#[tokio::test(start_paused = true)]
async fn power_of_two_forgets_stale_reports() {
    let registry = fleet(&[8]);
    let load = Some(ReportedLoad { active: 6, queued: 0 });
    join(&registry, spec("busy").slots(8), RunnerStatus { load, ..status() });
    assert_eq!(counts(&registry, &PowerOfTwo, 50).get("busy"), None);
    tokio::time::advance(Load::STALE + Duration::from_secs(1)).await;
    assert!(counts(&registry, &PowerOfTwo, 50)["busy"] > 5);
}

#[tokio::test(start_paused = true)]
async fn least_loaded_draws_evenly_from_different_sizes_and_reports() {
    let registry = fleet(&[]);
    for (id, slots, active) in [("a", 3, 1), ("b", 6, 2), ("c", 33, 11), ("d", 12, 4), ("busy", 4, 3)] {
        let load = Some(ReportedLoad { active, queued: 0 });
        join(&registry, spec(id).slots(slots), RunnerStatus { load, ..status() });
    }
    let before = counts(&registry, &LeastLoaded::default(), 8_000);
    assert!(!before.contains_key("busy") && is_even(before.values(), 4), "{before:?}");
    // All of it is forgotten at the same moment.
    tokio::time::advance(Load::STALE + Duration::from_secs(1)).await;
    let after = counts(&registry, &LeastLoaded::default(), 8_000);
    assert!(is_even(after.values(), 5), "{after:?}");
}

#[test]
fn round_robin_counts_turns_for_each_model_by_itself() {
    let registry = fleet(&[]);
    let models = ["x", "y"].map(|name| gateway_core::ModelId::new(name).unwrap());
    for id in ["a", "b"] {
        join(&registry, spec(id), RunnerStatus::serving(models.clone()));
    }
    for balancer in [&RoundRobin::default() as &dyn Balancer, &WeightedRoundRobin] {
        let mut counts: HashMap<_, u32> = HashMap::new();
        for turn in 0..400 {
            let requirements = Requirements::model(models[turn % 2].clone());
            let picked = pick_for(&registry, balancer, &requirements, &[]).unwrap();
            *counts.entry((turn % 2, picked.runner().id().to_string())).or_default() += 1;
        }
        // One counter for both would give each model the same runner every time.
        assert!(counts.len() == 4 && counts.values().all(|count| *count == 100), "{counts:?}");
    }
}

#[test]
fn weights_are_slots_or_what_the_label_says() {
    let registry = fleet(&[]);
    for (id, slots, weight) in
        [("two", 2, None), ("six", 6, None), ("ten", 1_000, Some("10")), ("odd", 2, Some("many"))]
    {
        let spec = spec(id).slots(slots);
        join(&registry, weight.into_iter().fold(spec, |spec, weight| spec.label("weight", weight)), status());
    }
    join(&registry, spec("unknown"), status());
    join(&registry, spec("none").label("weight", "0"), status());
    // 2 + 6 + 10 + 2 + 4 assumed.
    let counts = counts(&registry, &WeightedRoundRobin, 240);
    let expected = [("two", 20), ("six", 60), ("ten", 100), ("odd", 20), ("unknown", 40)];
    assert_eq!(counts, expected.map(|(id, count)| (id.to_owned(), count)).into());
}

#[test]
fn without_weight_one_serves_when_nobody_else_can() {
    let registry = fleet(&[1]);
    join(&registry, spec("spare").slots(2).label("weight", "0"), status());
    let order: Vec<_> = (0..3).map(|_| pick(&registry, &WeightedRoundRobin).unwrap()).collect();
    let order: Vec<_> = order.iter().map(|held| held.runner().id().as_str()).collect();
    assert_eq!(order, ["r0", "spare", "spare"]);
}

/// Most are full, so many picks fall back to a draw, and that goes by weight too.
#[test]
fn the_few_that_are_free_share_by_weight() {
    let mut slots = [1; 60];
    slots[30] = 2;
    let registry = fleet(&slots);
    join(&registry, spec("heavy").slots(3).label("weight", "6"), status());
    let held: Vec<_> =
        registry.fleet().runners().iter().map(|runner| runner.try_reserve().unwrap()).collect();
    let counts = counts(&registry, &WeightedRoundRobin, 4_000);
    let heavy = f64::from(counts["heavy"]) / f64::from(counts["r30"]);
    // Weights are 6 and 2.
    assert!((2.5..3.6).contains(&heavy), "{counts:?}");
    drop(held);
}

#[test]
fn power_of_two_prefers_the_smaller_share() {
    let registry = fleet(&[10, 20]);
    let counts = burst(&registry, &PowerOfTwo, 15);
    // Of two runners both are always looked at.
    assert_eq!((counts["r0"], counts["r1"]), (5, 10));
    let registry = fleet(&[100; 50]);
    let least = |counts: HashMap<String, usize>| counts.values().max().copied().unwrap();
    let (chance, choice) =
        (least(burst(&registry, &Random, 1_000)), least(burst(&registry, &PowerOfTwo, 1_000)));
    // 20 each: chance alone gives somebody 30, the better of two 22.
    assert!(choice <= 24 && choice < chance, "{choice} against {chance}");
}

#[test]
fn least_tokens_counts_work_and_not_requests() {
    let registry = fleet(&[8, 8]);
    let requirements = |tokens| {
        let mut requirements = Requirements::model(model());
        requirements.workload.prompt_tokens = Some(tokens);
        requirements
    };
    let balancer = LeastTokens::default();
    let long = pick_for(&registry, &balancer, &requirements(4_000), &[]).unwrap();
    let short: Vec<_> =
        (0..4).map(|_| pick_for(&registry, &balancer, &requirements(200), &[]).unwrap()).collect();
    assert!(short.iter().all(|short| short.runner().id() != long.runner().id()));
    // Where nothing is known of length, it is the number of requests that counts.
    let registry = fleet(&[8, 8]);
    assert_eq!(burst(&registry, &balancer, 8).values().copied().collect::<Vec<_>>(), [4, 4]);
}

#[test]
fn unknown_latency_is_probed_and_not_herded() {
    let registry = fleet(&[64; 4]);
    let counts = burst(&registry, &PeakEwma, 100);
    assert!(counts.values().all(|count| (15..=35).contains(count)), "{counts:?}");
}
