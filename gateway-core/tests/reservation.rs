//! A pick is a reservation: slots are never exceeded, and nothing but dropping gives one back.

#[path = "common/strategies.rs"]
mod list;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use gateway_core::{
    Balancer, InMemoryRegistry, LeastLoaded, Registry, Requirements, Reservation, RunnerChange, Tried,
};
use list::{all, fleet, join, model, pick_for, spec, status};
use proptest::prelude::*;

fn pick(registry: &InMemoryRegistry, balancer: &dyn Balancer, tried: &[Tried]) -> Option<Reservation> {
    pick_for(registry, balancer, &Requirements::model(model()), tried)
}

#[test]
fn every_strategy_fills_every_slot_and_no_more() {
    for balancer in all() {
        let registry = fleet(&[1, 2, 5]);
        let held: Vec<_> =
            (0..8).map(|_| pick(&registry, &*balancer, &[]).expect("a slot is free")).collect();
        assert!(pick(&registry, &*balancer, &[]).is_none(), "{}", balancer.name());
        drop(held);
        assert!(registry.fleet().runners().iter().all(|runner| runner.load().in_flight == 0));
        assert!(pick(&registry, &*balancer, &[]).is_some());
    }
}

#[test]
fn no_strategy_picks_who_was_tried_or_drains() {
    for balancer in all() {
        let registry = fleet(&[4, 4, 4]);
        let key = |id: &str| registry.fleet().runner(id).unwrap().key().clone();
        registry.update(&key("r1"), RunnerChange::Drain(true));
        let tried = [Tried { runner: key("r0"), sent: true }];
        for _ in 0..20 {
            let reservation = pick(&registry, &*balancer, &tried).unwrap();
            assert_eq!(reservation.runner().id().as_str(), "r2", "{}", balancer.name());
        }
        registry.update(&key("r1"), RunnerChange::Drain(false));
        let held: Vec<_> = (0..8).filter_map(|_| pick(&registry, &*balancer, &tried)).collect();
        assert_eq!(held.len(), 8);
    }
}

#[test]
fn a_new_registration_is_tried_only_if_the_old_one_saw_nothing() {
    let registry = fleet(&[4]);
    let old = registry.fleet().runner("r0").unwrap().key().clone();
    join(&registry, spec("r0").slots(4), status());
    let tried = |sent| [Tried { runner: old.clone(), sent }];
    assert!(pick(&registry, &LeastLoaded::default(), &tried(true)).is_none());
    assert!(pick(&registry, &LeastLoaded::default(), &tried(false)).is_some());
}

#[test]
fn many_threads_never_exceed_the_slots() {
    for balancer in all() {
        let registry = Arc::new(fleet(&[1, 2, 1]));
        let most = AtomicU32::new(0);
        let refused = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut held = Vec::new();
                    for turn in 0..3000 {
                        match pick(&registry, &*balancer, &[]) {
                            Some(reservation) => held.push(reservation),
                            None => {
                                refused.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        for runner in registry.fleet().runners() {
                            let load = runner.load();
                            let slots = load.slots.unwrap().get();
                            most.fetch_max(load.in_flight.saturating_sub(slots), Ordering::Relaxed);
                        }
                        if turn % 3 == 0 || held.len() > 5 {
                            held.pop();
                        }
                    }
                });
            }
        });
        assert_eq!(most.into_inner(), 0, "{} exceeded the slots", balancer.name());
        assert!(refused.into_inner() > 0, "the slots were never short");
        assert!(registry.fleet().runners().iter().all(|runner| runner.load().in_flight == 0));
    }
}

/// Registrations come and go while four threads pick and give back.
#[test]
fn many_threads_never_exceed_the_slots_while_the_fleet_changes() {
    for balancer in all() {
        let registry = Arc::new(fleet(&[1, 2, 1]));
        let over = AtomicBool::new(false);
        let most = AtomicU32::new(0);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut held: Vec<Reservation> = Vec::new();
                        for turn in 0..2000 {
                            held.extend(pick(&registry, &*balancer, &[]));
                            for held in &held {
                                let load = held.runner().load();
                                let slots = load.slots.unwrap().get();
                                most.fetch_max(load.in_flight.saturating_sub(slots), Ordering::Relaxed);
                            }
                            if turn % 3 == 0 || held.len() > 5 {
                                held.pop();
                            }
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                let mut number = 0;
                while !over.load(Ordering::Relaxed) {
                    number += 1;
                    let id = format!("r{}", number % 5);
                    let snapshot = registry.fleet();
                    match snapshot.runner(&id) {
                        Some(runner) if number % 2 == 0 => {
                            registry.leave(runner.key(), gateway_core::LeaveReason::Disconnected);
                        }
                        _ => join(&registry, spec(&id).slots(1 + number % 3), status()),
                    }
                    std::thread::yield_now();
                }
            });
            for thread in threads {
                thread.join().unwrap();
            }
            over.store(true, Ordering::Relaxed);
        });
        assert_eq!(most.into_inner(), 0, "{} exceeded the slots", balancer.name());
        assert!(registry.fleet().runners().iter().all(|runner| runner.load().in_flight == 0));
    }
}

proptest! {
    /// Whatever is picked, dropped and drained in whatever order, counts are what is held.
    #[test]
    fn counts_are_what_is_held(slots in proptest::collection::vec(0..4u32, 1..5), ops in proptest::collection::vec(0..10u8, 1..80)) {
        let registry = fleet(&slots);
        let balancer = LeastLoaded::default();
        let mut held: Vec<Reservation> = Vec::new();
        for op in ops {
            match op {
                0..6 => held.extend(pick(&registry, &balancer, &[])),
                6..9 if !held.is_empty() => drop(held.swap_remove(usize::from(op) % held.len())),
                _ => {
                    let fleet = registry.fleet();
                    let runner = &fleet.runners()[usize::from(op) % fleet.runners().len()];
                    registry.update(runner.key(), RunnerChange::Drain(!runner.is_draining()));
                }
            }
            for runner in registry.fleet().runners() {
                let mine = held.iter().filter(|held| held.runner().key() == runner.key()).count();
                let load = runner.load();
                prop_assert_eq!(load.in_flight as usize, mine);
                prop_assert!(load.slots.is_none_or(|slots| load.in_flight <= slots.get()));
            }
        }
    }
}
