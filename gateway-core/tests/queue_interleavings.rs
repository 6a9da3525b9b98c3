//! Two waiters and one slot never leave one asleep, in every interleaving that the memory model allows.
//!
//! What is checked is the code itself: the count of waiters, the counter of slots and the baton are included
//! here with loom's types in the place of those of `std`. Around them is the least queue there can be.

#![allow(dead_code, clippy::duplicate_mod)]

use std::collections::VecDeque;

use loom::sync::atomic::AtomicBool;
use loom::sync::{Arc, Mutex};
use loom::thread;

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};
}

#[path = "../src/queue/baton.rs"]
mod baton;
#[path = "../src/bell/headcount.rs"]
mod headcount;
#[path = "../src/runner/slots.rs"]
mod slots;

use baton::{Baton, Rung};
use headcount::Headcount;
use slots::{CLOSED, Slots, Unit};
use sync::Ordering;

const LIMIT: u32 = 1;

fn take(slots: &Slots) -> bool {
    slots.take(Unit::of(LIMIT), LIMIT, CLOSED).is_ok()
}

struct Queue {
    slots: Slots,
    waiting: Headcount,
    baton: Baton,
    /// Who waits.
    order: Mutex<VecDeque<usize>>,
    handed: [AtomicBool; 2],
    /// A deputy was called for.
    called: AtomicBool,
    turns: usize,
}

impl Queue {
    /// With the only slot taken, or not.
    fn new(turns: usize, taken: bool) -> Arc<Self> {
        let slots = Slots::closed();
        slots.reset(true);
        let queue = Self {
            slots,
            waiting: Headcount::new(),
            baton: Baton::new(),
            order: Mutex::new(VecDeque::new()),
            handed: [AtomicBool::new(false), AtomicBool::new(false)],
            called: AtomicBool::new(false),
            turns,
        };
        assert!(!taken || take(&queue.slots));
        Arc::new(queue)
    }

    fn serve(&self) {
        let round = || {
            while let Some(first) = self.first() {
                if !take(&self.slots) {
                    break;
                }
                let mut order = self.order.lock().unwrap();
                if order.front() == Some(&first) {
                    order.pop_front();
                    self.handed[first].store(true, Ordering::Release);
                } else {
                    // Has left. What is given back here was free before, so it is no news.
                    self.slots.give_back(Unit::of(LIMIT));
                }
            }
        };
        if self.baton.ring(self.turns, round) == Rung::Unfinished {
            self.called.store(true, Ordering::Release);
        }
    }

    fn first(&self) -> Option<usize> {
        self.order.lock().unwrap().front().copied()
    }

    fn wait(&self, me: usize) {
        self.waiting.enter();
        self.order.lock().unwrap().push_back(me);
        self.serve();
    }

    fn give_back(&self) {
        self.slots.give_back(Unit::of(LIMIT));
        if self.waiting.is_anybody() {
            self.serve();
        }
    }

    fn was_handed(&self, who: usize) -> bool {
        self.handed[who].load(Ordering::Acquire)
    }

    /// What a deputy does: it is somebody who waits, so there may be none.
    fn deputise(&self) {
        if self.called.swap(false, Ordering::AcqRel) && self.first().is_some() {
            self.serve();
        }
    }

    fn nobody_sleeps_on_a_free_slot(&self) {
        let sleeps = self.first().is_some();
        assert!(!sleeps || self.slots.taken() == LIMIT, "the slot is free and somebody sleeps");
    }
}

fn check(threads: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    // Each bug of this kind shows with two or three switches; all would take hours.
    model.preemption_bound = Some(3);
    model.check(threads);
}

#[test]
fn one_who_comes_while_the_slot_is_freed_gets_it() {
    check(|| {
        let queue = Queue::new(8, true);
        let waiter = thread::spawn({
            let queue = queue.clone();
            move || queue.wait(0)
        });
        queue.give_back();
        waiter.join().unwrap();
        assert!(queue.was_handed(0));
    });
}

#[test]
fn two_who_come_while_the_slot_is_freed_one_gets_it() {
    for turns in [1, 8] {
        check(move || {
            let queue = Queue::new(turns, true);
            let waiters = [0, 1].map(|me| {
                let queue = queue.clone();
                thread::spawn(move || queue.wait(me))
            });
            queue.give_back();
            for waiter in waiters {
                waiter.join().unwrap();
            }
            queue.deputise();
            assert!(queue.was_handed(0) != queue.was_handed(1), "exactly one");
            queue.nobody_sleeps_on_a_free_slot();
        });
    }
}

#[test]
fn the_slot_goes_from_one_to_the_other() {
    check(|| {
        let queue = Queue::new(8, false);
        let waiters = [0, 1].map(|me| {
            let queue = queue.clone();
            thread::spawn(move || {
                queue.wait(me);
                // Given back at once, if it is here already; else by the test, afterwards.
                if queue.handed[me].load(Ordering::Acquire) {
                    queue.waiting.leave();
                    queue.give_back();
                    return true;
                }
                false
            })
        });
        let mut done = waiters.map(|waiter| waiter.join().unwrap());
        for who in [0, 1, 0] {
            if !done[who] && queue.was_handed(who) {
                done[who] = true;
                queue.waiting.leave();
                queue.give_back();
            }
        }
        assert_eq!(done, [true, true], "one was left asleep");
        assert_eq!(queue.slots.taken(), 0);
    });
}

#[test]
fn a_slot_handed_to_one_who_goes_is_handed_on() {
    check(|| {
        let queue = Queue::new(8, true);
        queue.waiting.enter();
        queue.order.lock().unwrap().extend([0, 1]);
        queue.waiting.enter();
        let leaver = thread::spawn({
            let queue = queue.clone();
            move || {
                let left = {
                    let mut order = queue.order.lock().unwrap();
                    let at = order.iter().position(|who| *who == 0);
                    at.map(|at| order.remove(at)).is_some()
                };
                // Not there any more: it has been handed the slot, or is about to be.
                if !left {
                    while !queue.was_handed(0) {
                        thread::yield_now();
                    }
                    queue.give_back();
                }
                queue.waiting.leave();
            }
        });
        queue.give_back();
        leaver.join().unwrap();
        assert!(queue.was_handed(1), "the other was left asleep");
    });
}
