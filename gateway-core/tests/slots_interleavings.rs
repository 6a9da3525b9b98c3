//! The counter of slots under every interleaving of threads that the memory model allows: never more taken than
//! there are, nothing taken once it is closed, all given back, and a free slot is not overlooked by one who
//! begins to wait while it is freed. Includes the files themselves, on loom's types.
//!
//! How the queue hands slots on is checked in `queue_interleavings.rs`.

#![allow(dead_code)]

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
}

#[path = "../src/bell/headcount.rs"]
mod headcount;
#[path = "../src/runner/slots.rs"]
mod slots;

use headcount::Headcount;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::thread;
use slots::{CLOSED, RELUCTANT, Slots, Unit, comparable};

const SLOTS: u32 = 2;

fn check(threads: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    // Each bug of this kind shows with two or three switches. All of them were checked once, in seven minutes.
    model.preemption_bound = Some(3);
    model.check(threads);
}

fn unit() -> Unit {
    Unit::of(SLOTS)
}

fn take(slots: &Slots, limit: u32) -> bool {
    slots.take(unit(), limit, CLOSED).is_ok()
}

fn open() -> Arc<Slots> {
    let slots = Slots::closed();
    assert_eq!(slots.reset(true), CLOSED);
    Arc::new(slots)
}

#[test]
fn never_more_than_there_are_and_none_in_the_end() {
    check(|| {
        let slots = open();
        let work = |slots: &Slots| {
            let taken = take(slots, SLOTS);
            assert!(slots.taken() <= SLOTS);
            if taken {
                slots.give_back(unit());
            }
            taken
        };
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let slots = slots.clone();
                thread::spawn(move || work(&slots))
            })
            .collect();
        assert!(work(&slots) | threads.into_iter().fold(false, |any, thread| any | thread.join().unwrap()));
        assert_eq!((slots.taken(), comparable(slots.read())), (0, 0));
    });
}

#[test]
fn of_three_who_want_one_of_two_two_get_one() {
    check(|| {
        let slots = open();
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let slots = slots.clone();
                thread::spawn(move || take(&slots, SLOTS))
            })
            .collect();
        let mine = u32::from(take(&slots, SLOTS));
        let theirs: u32 = threads.into_iter().map(|thread| u32::from(thread.join().unwrap())).sum();
        assert_eq!(mine + theirs, SLOTS);
        assert_eq!(slots.taken(), SLOTS);
    });
}

#[test]
fn exactly_one_gives_back_the_last() {
    check(|| {
        let slots = open();
        assert!(take(&slots, SLOTS) && take(&slots, SLOTS));
        let other = thread::spawn({
            let slots = slots.clone();
            move || slots.give_back(unit())
        });
        let mine = slots.give_back(unit());
        assert!(mine != other.join().unwrap());
    });
}

#[test]
fn reports_flags_and_counts_do_not_disturb_one_another() {
    check(|| {
        let slots = open();
        slots.show(unit(), 1, 0);
        let reporter = thread::spawn({
            let slots = slots.clone();
            move || slots.show(unit(), 5, 1)
        });
        let keeper = thread::spawn({
            let slots = slots.clone();
            move || {
                assert!(slots.set(RELUCTANT, true));
                assert!(slots.set(RELUCTANT, false));
            }
        });
        assert!(take(&slots, SLOTS));
        assert_eq!(slots.taken(), 1);
        slots.give_back(unit());
        reporter.join().unwrap();
        keeper.join().unwrap();
        let alike = open();
        alike.show(unit(), 5, 0);
        assert_eq!((slots.taken(), slots.read()), (0, alike.read()));
    });
}

#[test]
fn nothing_is_taken_once_it_is_closed() {
    check(|| {
        let slots = open();
        let closed = Arc::new(AtomicBool::new(false));
        let closer = thread::spawn({
            let (slots, closed) = (slots.clone(), closed.clone());
            move || {
                slots.set(CLOSED, true);
                closed.store(true, Ordering::Release);
            }
        });
        let was_closed = closed.load(Ordering::Acquire);
        let taken = take(&slots, SLOTS);
        assert!(!(was_closed && taken), "it was closed before");
        closer.join().unwrap();
        assert!(!take(&slots, SLOTS));
        assert_eq!(slots.taken(), u32::from(taken));
    });
}

/// Whoever waits counts himself and looks; whoever frees a slot gives it back and looks for one who waits. As
/// loads.rs does, the one who waits may trust an earlier look if the block's count of changes is the same.
#[test]
fn a_slot_that_is_freed_is_found_or_the_waiter_is_told() {
    check(|| {
        let slots = open();
        assert!(take(&slots, 1));
        let waiting = Arc::new(Headcount::new());
        let changes = Arc::new(AtomicU64::new(0));
        // An earlier look found no room.
        let known = changes.load(Ordering::Acquire);
        let giver = thread::spawn({
            let (slots, waiting, changes) = (slots.clone(), waiting.clone(), changes.clone());
            move || {
                slots.give_back(unit());
                changes.fetch_add(1, Ordering::Release);
                waiting.is_anybody()
            }
        });
        waiting.enter();
        let found = changes.load(Ordering::Acquire) != known && take(&slots, 1);
        let told = giver.join().unwrap();
        assert!(found || told, "asleep beside a free slot");
    });
}
