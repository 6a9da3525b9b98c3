//! The strategy `resource-aware`: what is promised is gone at once, and requests are packed closely.

mod fleet;

use std::sync::atomic::{AtomicUsize, Ordering};

use fleet::{TestFleet, counts, needs, spec, status, value, with_resources};
use gateway_core::{
    Balancer, Registry, ReportedLoad, Requirements, ResourceAware, Resources, RunnerChange, RunnerStatus,
};

fn gpus(gpus: f64) -> Resources {
    Resources { cpus: 64.0, gpus, memory_gb: 512.0 }
}

fn asking(cpus: f64, gpus: f64, memory_gb: f64) -> Requirements {
    Requirements { resources: Some(Resources { cpus, gpus, memory_gb }), ..needs() }
}

fn four_and_four() -> TestFleet {
    let fleet = TestFleet::new();
    for id in ["a", "b"] {
        fleet.join(spec(id).slots(64), with_resources(gpus(4.0), gpus(4.0)));
    }
    fleet
}

#[test]
fn a_burst_between_two_reports_gets_what_there_is_and_no_more() {
    let fleet = four_and_four();
    let one_gpu = asking(1.0, 1.0, 8.0);
    let held = fleet.burst(&ResourceAware, &one_gpu, 10);
    assert_eq!(counts(&held).into_values().collect::<Vec<_>>(), [4, 4]);
    assert!(fleet.try_pick(&ResourceAware, &one_gpu).is_none());
    drop(held);
    assert_eq!(fleet.burst(&ResourceAware, &one_gpu, 10).len(), 8, "all of it was given back");
    fleet.assert_all_zero();
}

#[test]
fn a_report_from_before_the_burst_frees_nothing() {
    let fleet = four_and_four();
    let one_gpu = asking(1.0, 1.0, 8.0);
    let mut held = fleet.burst(&ResourceAware, &one_gpu, 6);
    for id in ["a", "b"] {
        // Written before any of them arrived there.
        let late = RunnerStatus {
            load: Some(ReportedLoad { active: 0, queued: 0 }),
            ..with_resources(gpus(4.0), gpus(4.0))
        };
        fleet.registry.update(fleet.runner(id).key(), RunnerChange::Status(late));
    }
    held.extend(fleet.burst(&ResourceAware, &one_gpu, 10));
    assert_eq!(held.len(), 8);
}

#[test]
fn many_threads_never_promise_more_than_there_is() {
    let fleet = four_and_four();
    let (held_now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let one_gpu = asking(1.0, 1.0, 8.0);
                for _ in 0..500 {
                    let held = fleet.burst(&ResourceAware, &one_gpu, 4);
                    let now = held_now.fetch_add(held.len(), Ordering::SeqCst) + held.len();
                    most.fetch_max(now, Ordering::SeqCst);
                    held_now.fetch_sub(held.len(), Ordering::SeqCst);
                    drop(held);
                }
            });
        }
    });
    assert!((4..=8).contains(&most.into_inner()));
    fleet.assert_all_zero();
    assert_eq!(fleet.burst(&ResourceAware, &asking(1.0, 1.0, 8.0), 10).len(), 8);
}

#[test]
fn small_requests_leave_the_large_gap_for_the_large_one() {
    let fleet = four_and_four();
    let small = fleet.burst(&ResourceAware, &asking(1.0, 1.0, 8.0), 4);
    assert_eq!(counts(&small).len(), 1, "packed on one of the two");
    assert!(fleet.try_pick(&ResourceAware, &asking(1.0, 4.0, 8.0)).is_some());
}

#[test]
fn accelerators_are_kept_for_those_who_ask_for_them() {
    let fleet = TestFleet::new();
    // The closer fit by cores, but its accelerators would stand idle.
    let cores = Resources { cpus: 8.0, gpus: 4.0, memory_gb: 64.0 };
    fleet.join(spec("gpu").slots(9), with_resources(cores, cores));
    let cores = Resources { cpus: 16.0, gpus: 0.0, memory_gb: 128.0 };
    fleet.join(spec("cpu").slots(9), with_resources(cores, cores));
    let held = fleet.burst(&ResourceAware, &asking(8.0, 0.0, 8.0), 4);
    let order: Vec<_> = held.iter().map(|held| held.runner().id().as_str()).collect();
    assert_eq!(order, ["cpu", "cpu", "gpu"], "better a scarce machine than none");
}

#[test]
fn who_reports_nothing_gets_nothing_that_needs_something() {
    let fleet = TestFleet::new();
    fleet.join(spec("silent"), status());
    assert!(fleet.try_pick(&ResourceAware, &asking(1.0, 0.0, 0.0)).is_none());
    assert!(fleet.try_pick(&ResourceAware, &needs()).is_some());
}

#[test]
fn requests_that_need_nothing_go_by_load() {
    let fleet = four_and_four();
    let held = fleet.burst(&ResourceAware, &needs(), 20);
    assert_eq!(counts(&held).into_values().collect::<Vec<_>>(), [10, 10]);
}

#[test]
fn explains_what_would_be_left() {
    let fleet = four_and_four();
    let _held = fleet.runner("a").try_reserve_for(&asking(1.0, 2.0, 8.0)).unwrap();
    let left = |id| value(&fleet.scores(&ResourceAware, &asking(1.0, 1.0, 8.0), id), "left");
    assert_eq!((left("a"), left("b")), (Some(0.25), Some(0.75)));
    assert_eq!(ResourceAware.name(), "resource-aware");
}
