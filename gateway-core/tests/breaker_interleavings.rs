//! The breaker's gate under every interleaving of threads: never more probes than places, each given back,
//! one opening and one closing at a time. Includes the file itself, on loom's atomics.

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
}

#[allow(dead_code)]
#[path = "../src/health/gate.rs"]
mod gate;

use std::sync::Arc;

use gate::{Entry, Gate, Phase, Probe, Turn, Verdict};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

const PLACES: u8 = 1;

fn open() -> Arc<Gate> {
    let gate = Arc::new(Gate::new());
    assert_eq!(gate.trip(0, 1_000, PLACES, |_| 10), Some(Turn::Opened));
    gate
}

fn probe(gate: &Gate, now: u64) -> Option<Probe> {
    match gate.enter(now)? {
        Entry::Probe(probe) => Some(probe),
        Entry::Free => None,
    }
}

fn passed(now: u64) -> Verdict<fn(u8) -> u64> {
    Verdict::Passed { enough: 2, now }
}

fn failed(now: u64) -> Verdict<impl Fn(u8) -> u64> {
    Verdict::Failed { places: PLACES, until: move |_| now + 10 }
}

/// Runs three requests at once and checks that never more than one of them is a probe at the same moment.
fn three_at_once(end: impl Fn(&Gate, Probe, usize) + Sync + Send + Copy + 'static) {
    loom::model(move || {
        let gate = open();
        let probing = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..2)
            .map(|number| {
                let (gate, probing) = (gate.clone(), probing.clone());
                thread::spawn(move || request(&gate, &probing, number, end))
            })
            .collect();
        request(&gate, &probing, 2, end);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(gate.look().out, 0, "every place was given back");
    });
}

fn request(gate: &Gate, probing: &AtomicUsize, number: usize, end: impl Fn(&Gate, Probe, usize)) {
    if let Some(probe) = probe(gate, 10) {
        assert!(probing.fetch_add(1, Ordering::SeqCst) < usize::from(PLACES));
        probing.fetch_sub(1, Ordering::SeqCst);
        end(gate, probe, number);
    }
}

#[test]
fn probes_without_a_verdict_give_their_place_back() {
    three_at_once(|gate, mut probe, _| gate.give_back(&mut probe));
}

#[test]
fn probes_that_pass_close_it_once() {
    three_at_once(|gate, mut probe, _| {
        if gate.settle(&mut probe, passed(11)) == Some(Turn::Closed) {
            // Two have passed; a third may have come before or find it closed, and closes it no more.
            assert_eq!(gate.look().phase, Phase::Closed);
        }
    });
}

#[test]
fn a_probe_that_fails_opens_it_whoever_else_is_at_it() {
    three_at_once(|gate, mut probe, number| {
        if number == 1 {
            let turn = gate.settle(&mut probe, failed(11));
            // Only two others could have closed it before.
            assert!(turn == Some(Turn::Opened) || gate.look().phase == Phase::Closed);
        } else {
            gate.settle(&mut probe, passed(11));
        }
    });
}

#[test]
fn two_places_are_two() {
    loom::model(|| {
        let gate = Arc::new(Gate::new());
        gate.trip(0, 1_000, 2, |_| 10);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let gate = gate.clone();
                thread::spawn(move || probe(&gate, 10))
            })
            .collect();
        let mut probes: Vec<_> = vec![probe(&gate, 10)];
        probes.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
        assert_eq!(probes.iter().flatten().count(), 2, "nobody gave one back, so two have one");
        assert_eq!(gate.look().out, 2);
        for mut probe in probes.into_iter().flatten() {
            gate.give_back(&mut probe);
        }
        assert_eq!(gate.look().out, 0);
    });
}

#[test]
fn it_opens_once_however_many_faults_arrive() {
    loom::model(|| {
        let gate = Arc::new(Gate::new());
        let trip = |gate: &Gate| usize::from(gate.trip(5, 1_000, PLACES, |_| 10).is_some());
        let other = {
            let gate = gate.clone();
            thread::spawn(move || trip(&gate))
        };
        let mine = trip(&gate);
        assert_eq!(mine + other.join().unwrap(), 1);
        assert_eq!(gate.look().opened, 1);
    });
}

#[test]
fn a_place_that_is_given_back_while_it_opens_again_is_not_lost() {
    loom::model(|| {
        let gate = Arc::new(Gate::new());
        gate.trip(0, 1_000, 2, |_| 10);
        let (mut bad, mut slow) = (probe(&gate, 10).unwrap(), probe(&gate, 10).unwrap());
        let other = {
            let gate = gate.clone();
            thread::spawn(move || gate.settle(&mut bad, failed(11)))
        };
        gate.give_back(&mut slow);
        assert_eq!(other.join().unwrap(), Some(Turn::Opened));
        let view = gate.look();
        assert_eq!((view.phase, view.out, view.at), (Phase::Open, 0, 21));
    });
}
