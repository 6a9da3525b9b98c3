//! Beside the file that they test, because `tests/breaker_interleavings.rs` includes that under loom.

use super::gate::{Entry, Gate, Phase, Probe, Turn, Verdict, View};

fn probe(gate: &Gate, now: u64) -> Option<Probe> {
    match gate.enter(now)? {
        Entry::Probe(probe) => Some(probe),
        Entry::Free => panic!("the gate is closed"),
    }
}

fn passed(enough: u8, now: u64) -> Verdict<fn(u8) -> u64> {
    Verdict::Passed { enough, now }
}

fn failed(until: u64) -> Verdict<impl Fn(u8) -> u64> {
    Verdict::Failed { places: 2, until: move |_| until }
}

#[test]
fn a_word_holds_it_all() {
    for phase in [Phase::Closed, Phase::Open, Phase::HalfOpen] {
        let view = View { phase, out: 63, places: 62, passed: 61, opened: 31, at: (1 << 39) - 1 };
        assert_eq!(View::unpack(view.pack()), view);
        let view = View { phase, out: 1, places: 2, passed: 3, opened: 4, at: 5 };
        assert_eq!(View::unpack(view.pack()), view);
    }
}

#[test]
fn opens_lets_probes_in_and_closes() {
    let gate = Gate::new();
    assert!(matches!(gate.enter(0), Some(Entry::Free)));
    assert_eq!(gate.trip(10, 100, 2, |_| 20), Some(Turn::Opened));
    assert_eq!(gate.trip(11, 100, 2, |_| 50), None, "it is open already");
    assert!(gate.enter(19).is_none() && !gate.would_admit(19));
    let mut one = probe(&gate, 20).unwrap();
    let mut two = probe(&gate, 20).unwrap();
    assert!(gate.enter(20).is_none(), "two places");
    gate.give_back(&mut one);
    gate.give_back(&mut one);
    let mut three = probe(&gate, 21).unwrap();
    assert!(gate.enter(21).is_none());
    assert_eq!(gate.settle(&mut two, passed(2, 22)), None);
    assert_eq!(gate.settle(&mut two, passed(2, 22)), None, "one verdict each");
    assert_eq!(gate.settle(&mut three, passed(2, 23)), Some(Turn::Closed));
    assert!(gate.is_closed());
    assert_eq!(gate.look().out, 0);
}

#[test]
fn a_probe_that_fails_after_it_passed_opens_it_again() {
    let gate = Gate::new();
    gate.trip(0, 100, 2, |_| 10);
    let mut one = probe(&gate, 10).unwrap();
    assert_eq!(gate.settle(&mut one, passed(2, 11)), None);
    assert_eq!(gate.settle(&mut one, failed(30)), Some(Turn::Opened));
    assert_eq!(gate.look().out, 0);
}

#[test]
fn a_verdict_on_what_is_over_only_gives_the_place_back() {
    let gate = Gate::new();
    gate.trip(0, 100, 2, |_| 10);
    let mut old = probe(&gate, 10).unwrap();
    let mut bad = probe(&gate, 10).unwrap();
    assert_eq!(gate.settle(&mut bad, failed(20)), Some(Turn::Opened));
    let mut new = probe(&gate, 20).unwrap();
    assert!(gate.enter(20).is_none(), "the old one still holds its place");
    assert_eq!(gate.settle(&mut old, failed(40)), None);
    assert_eq!(gate.settle(&mut new, passed(1, 25)), Some(Turn::Closed));
    assert_eq!(gate.look().out, 0);
}

#[test]
fn openings_add_up_until_it_was_closed_for_long() {
    let gate = Gate::new();
    let open = |now| {
        gate.trip(now, 100, 1, |opened| now + u64::from(opened));
        let mut probe = probe(&gate, now + 31).unwrap();
        gate.settle(&mut probe, passed(1, now + 31));
        gate.look().opened
    };
    assert_eq!((open(1_000), open(1_100), open(1_200)), (1, 2, 3));
    assert_eq!(open(1_331), 1, "100 ms after it closed");
}
