//! Waiting for a slot: who is let in, who is served when, and how waiting ends.

mod shop;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gateway_core::{
    LaneReport, Priority, QueueErrorKind, QueuePolicy, Registry, Reservation, RunnerChange, RunnerId,
    RunnerSpec, WaitEnd, Waiter,
};
use shop::{BLIND, Ear, Shop, Waiting, begin, handed, labelled, model, of, poll, tenant, waiter};
use tokio::time::{Instant, advance};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_freed_slot_is_handed_over_and_no_newcomer_can_take_it() {
    let shop = Shop::new();
    let queue = shop.queue(BLIND);
    shop.join("r", 1, &["m"]);
    let taken = shop.take("m").unwrap();
    let mut waiting = begin(&queue, waiter("m"));
    assert_eq!((queue.depth(), shop.fleet().bell().waiting()), (1, 1));
    drop(taken);
    assert_eq!(queue.depth(), 0, "handed over in the drop itself");
    assert!(shop.take("m").is_none(), "a newcomer came first");
    let reservation = handed(&mut waiting);
    drop((reservation, waiting));
    assert_eq!((shop.in_flight(), shop.fleet().bell().waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_was_freed_before_is_found_on_entering() {
    let shop = Shop::new();
    let queue = shop.queue(QueuePolicy { patience: Duration::ZERO, ..BLIND });
    shop.join("r", 1, &["m"]);
    let reservation = queue.wait(waiter("m")).await.expect("looks before it goes");
    let error = queue.wait(waiter("m")).await.unwrap_err();
    assert_eq!(error.kind(), QueueErrorKind::TimedOut);
    drop(reservation);
}

#[tokio::test(start_paused = true)]
async fn one_tenant_cannot_fill_the_queue() {
    let shop = Shop::new();
    let queue = shop.queue(QueuePolicy { max_waiting: 4, max_per_tenant: 3, ..BLIND });
    shop.join("r", 1, &["m"]);
    let taken = shop.take("m");
    let mut line: Vec<_> = (0..3).map(|_| begin(&queue, of("m", "a", Priority::Normal))).collect();
    let error = queue.wait(of("m", "a", Priority::High)).await.unwrap_err();
    assert_eq!(error.kind(), QueueErrorKind::TenantFull);
    line.push(begin(&queue, of("m", "b", Priority::Normal)));
    let error = queue.wait(of("m", "c", Priority::High)).await.unwrap_err();
    assert_eq!((error.kind(), error.waited()), (QueueErrorKind::Full, Duration::ZERO));
    drop((line, taken));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_says_when_to_come_back() {
    let shop = Shop::new();
    let ear = Arc::new(Ear::default());
    let queue = shop.watched_queue(QueuePolicy { max_waiting: 4, ..BLIND }, vec![ear.clone()]);
    shop.join("r", 1, &["m"]);
    let mut slot = shop.take("m");
    let mut line: VecDeque<_> = (0..4).map(|_| begin(&queue, waiter("m"))).collect();
    let error = queue.wait(waiter("m")).await.unwrap_err();
    assert_eq!(error.retry_after(), 5 * SECOND, "nothing was measured yet");
    // One slot every three seconds, and always four in the queue.
    for _ in 0..8 {
        advance(3 * SECOND).await;
        drop(slot.take());
        slot = Some(handed(&mut line.pop_front().unwrap()));
        line.push_back(begin(&queue, waiter("m")));
    }
    let error = queue.wait(waiter("m")).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (QueueErrorKind::Full, 12 * SECOND));
    assert_eq!(error.to_string(), "too many requests wait for a free runner; try again in 12 s");
    // Silence is slow.
    advance(10 * SECOND).await;
    assert_eq!(queue.wait(waiter("m")).await.unwrap_err().retry_after(), 40 * SECOND);
    assert_eq!(ear.ends().iter().filter(|end| **end == WaitEnd::Refused).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn switched_off_nothing_waits() {
    let shop = Shop::new();
    let queue = shop.queue(QueuePolicy::OFF);
    shop.join("r", 1, &["m"]);
    let error = queue.wait(waiter("m")).await.unwrap_err();
    assert_eq!(error.kind(), QueueErrorKind::Full);
    assert_eq!(shop.fleet().bell().waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_goes_leaves_at_once_and_hands_on_what_it_was_given() {
    let shop = Shop::new();
    let ear = Arc::new(Ear::default());
    let queue = shop.watched_queue(BLIND, vec![ear.clone()]);
    shop.join("r", 1, &["m"]);
    let taken = shop.take("m").unwrap();
    let [first, second, mut third] = [(); 3].map(|()| begin(&queue, waiter("m")));
    drop(first);
    assert_eq!((queue.depth(), shop.fleet().bell().waiting()), (2, 2));
    drop(taken);
    assert_eq!(queue.depth(), 1, "handed to the second, who has not looked yet");
    drop(second);
    assert_eq!(queue.depth(), 0);
    drop(handed(&mut third));
    assert_eq!(shop.in_flight(), 0);
    assert_eq!(ear.ends(), [WaitEnd::Cancelled, WaitEnd::Cancelled, WaitEnd::Served]);
}

#[tokio::test(start_paused = true)]
async fn patience_and_time_end() {
    let shop = Shop::new();
    let ear = Arc::new(Ear::default());
    let queue =
        shop.watched_queue(QueuePolicy { max_waiting: 9, ..QueuePolicy::default() }, vec![ear.clone()]);
    shop.join("r", 1, &["m"]);
    let taken = shop.take("m").unwrap();
    let start = Instant::now();
    for (patience, until, ends) in [
        (None, None, QueuePolicy::PATIENCE),
        (Some(7 * SECOND), None, 7 * SECOND),
        (Some(7 * SECOND), Some(2 * SECOND), 2 * SECOND),
        (None, Some(300 * SECOND), QueuePolicy::PATIENCE),
    ] {
        let before = Instant::now();
        let until = until.map(|until| before + until);
        let error = queue.wait(Waiter { patience, until, ..waiter("m") }).await.unwrap_err();
        assert_eq!(error.kind(), QueueErrorKind::TimedOut);
        assert_eq!((before.elapsed(), error.waited()), (ends, ends));
    }
    assert_eq!((queue.depth(), shop.fleet().bell().waiting()), (0, 0));
    assert_eq!(ear.ends(), [WaitEnd::TimedOut; 4]);
    drop(taken);
    assert!(start.elapsed() > Duration::ZERO && shop.take("m").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_comes_with_the_end_of_patience_is_not_lost() {
    let shop = Shop::new();
    let queue = shop.queue(BLIND);
    shop.join("r", 1, &["m"]);
    let taken = shop.take("m").unwrap();
    let mut waiting = begin(&queue, Waiter { patience: Some(SECOND), ..waiter("m") });
    advance(SECOND).await;
    drop(taken);
    drop(handed(&mut waiting));
    assert_eq!(shop.in_flight(), 0);
}

/// Passes one slot through a line, and says in which order its waiters had it.
fn pass_through<N: Copy>(first: Reservation, line: &mut Vec<(N, Waiting)>) -> Vec<N> {
    let mut order = Vec::new();
    let mut slot = Some(first);
    while !line.is_empty() {
        drop(slot.take());
        let next = line.iter_mut().enumerate().find_map(|(at, (_, waiting))| Some((at, poll(waiting)?)));
        let (at, reservation) = next.expect("nobody was handed the slot");
        slot = Some(reservation.unwrap());
        order.push(line.remove(at).0);
    }
    order
}

#[tokio::test(start_paused = true)]
async fn urgent_ones_first_tenants_in_turn() {
    let shop = Shop::new();
    let queue = shop.queue(BLIND);
    shop.join("r", 1, &["m"]);
    let taken = shop.take("m").unwrap();
    let mut line = Vec::new();
    let mut enter = |name, tenant, priority| line.push((name, begin(&queue, of("m", tenant, priority))));
    enter("batch", "a", Priority::Low);
    for name in ["a1", "a2", "a3"] {
        enter(name, "a", Priority::Normal);
    }
    enter("b1", "b", Priority::Normal);
    enter("b2", "b", Priority::Normal);
    enter("urgent", "c", Priority::High);
    assert_eq!(queue.depth_of(Priority::Normal), 5);
    let order = pass_through(taken, &mut line);
    assert_eq!(order, ["urgent", "a1", "b1", "a2", "b2", "a3", "batch"]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_long_is_urgent() {
    let shop = Shop::new();
    let queue = shop.queue(BLIND);
    shop.join("r", 1, &["m"]);
    let taken = shop.take("m").unwrap();
    let mut line = vec![("old batch", begin(&queue, of("m", "a", Priority::Low)))];
    advance(2 * QueuePolicy::AGEING).await;
    line.push(("new batch", begin(&queue, of("m", "a", Priority::Low))));
    for _ in 0..3 {
        line.push(("urgent", begin(&queue, of("m", "b", Priority::High))));
    }
    let order = pass_through(taken, &mut line);
    assert!(order[..2].contains(&"old batch") && order[4] == "new batch", "{order:?}");
}

#[tokio::test(start_paused = true)]
async fn models_do_not_block_each_other_and_share_a_runner_in_turn() {
    let shop = Shop::new();
    let queue = shop.queue(BLIND);
    shop.join("both", 1, &["x", "y"]);
    shop.join("only-y", 1, &["y"]);
    let (first, second) = (shop.take("x").unwrap(), shop.take("y").unwrap());
    assert_eq!(second.runner().id().as_str(), "only-y");
    let mut line: Vec<_> =
        ["x1", "x2", "x3", "y1", "y2"].map(|name| (name, begin(&queue, waiter(&name[..1])))).into();
    drop(second);
    assert!(poll(&mut line[0].1).is_none());
    let y1 = handed(&mut line.remove(3).1);
    assert_eq!(pass_through(first, &mut line), ["x1", "y2", "x2", "x3"]);
    drop(y1);
}

#[tokio::test(start_paused = true)]
async fn special_wants_block_nobody() {
    let shop = Shop::new();
    let queue = shop.queue(BLIND);
    shop.join("plain", 1, &["m"]);
    shop.join_as(RunnerSpec::new(RunnerId::new("big").unwrap()).slots(1).label("big", "yes"), &["m"]);
    let held = [shop.take("m").unwrap(), shop.take("m").unwrap()];
    let [big, plain] = if held[0].runner().id().as_str() == "big" {
        held
    } else {
        let [plain, big] = held;
        [big, plain]
    };
    let mut special = begin(&queue, labelled("m", "big"));
    let mut line = [begin(&queue, waiter("m")), begin(&queue, waiter("m"))];
    drop(plain);
    let plain = handed(&mut line[0]);
    assert!(poll(&mut special).is_none() && poll(&mut line[1]).is_none());
    drop(big);
    assert_eq!(handed(&mut special).runner().id().as_str(), "big");
    // Dropped above, and so handed on.
    assert_eq!(handed(&mut line[1]).runner().id().as_str(), "big");
    drop(plain);
}

#[tokio::test(start_paused = true)]
async fn newcomers_know_whom_not_to_overtake() {
    let shop = Shop::new();
    let queue = shop.queue(BLIND);
    shop.join("r", 1, &["m"]);
    shop.join("other", 1, &["other"]);
    let taken = (shop.take("m"), shop.take("other"));
    let asks = |name, special| queue.has_waiters(&Some(model(name)), special);
    assert!(!asks("m", false) && !asks("m", true));
    let special = begin(&queue, labelled("m", "nobody-has-it"));
    assert!(!asks("m", false) && asks("m", true));
    let plain = begin(&queue, waiter("m"));
    assert!(asks("m", false) && asks("m", true) && !asks("other", false));
    drop((special, plain, taken));
    assert!(!asks("m", false) && !asks("m", true));
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_joins_serves_who_waits() {
    let shop = Shop::new();
    let queue = shop.queue(BLIND);
    shop.join("r", 1, &["m"]);
    let taken = shop.take("m").unwrap();
    let mut line: Vec<_> = (0..4).map(|_| begin(&queue, waiter("m"))).collect();
    shop.join("new", 3, &["m"]);
    let held: Vec<_> = line[..3].iter_mut().map(handed).collect();
    assert!(poll(&mut line[3]).is_none());
    drop((held, taken));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_runners_that_have_gone() {
    let shop = Shop::new();
    let queue = shop.queue(QueuePolicy::default());
    let key = shop.join("r", 1, &["m"]);
    let taken = shop.take("m").unwrap();
    let line = (0..3).map(|_| begin(&queue, waiter("m")));
    let line = tokio::spawn(futures_util::future::join_all(line));
    let start = Instant::now();
    // Nobody ever had the label.
    let special = queue.wait(labelled("m", "gpu")).await;
    assert_eq!(special.unwrap_err().kind(), QueueErrorKind::NotEligible);
    assert_eq!(queue.depth(), 3, "the others have hope");
    shop.leave(&key);
    for waited in line.await.unwrap() {
        assert_eq!(waited.unwrap_err().kind(), QueueErrorKind::NotEligible);
    }
    assert!(start.elapsed() <= 2 * QueuePolicy::LOOK);
    drop(taken);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_polled_does_not_stop_the_watch() {
    let shop = Shop::new();
    let queue = shop.queue(QueuePolicy::default());
    shop.join("r", 2, &["m"]);
    shop.open.store(false, Ordering::SeqCst);
    let mut idle = begin(&queue, waiter("m"));
    let second = tokio::spawn(begin(&queue, waiter("m")));
    tokio::time::sleep(2 * QueuePolicy::LOOK).await;
    shop.open.store(true, Ordering::SeqCst);
    let start = Instant::now();
    drop(second.await.unwrap().unwrap());
    assert!(start.elapsed() <= 10 * QueuePolicy::LOOK);
    drop(handed(&mut idle));
}

#[tokio::test(start_paused = true)]
async fn what_rings_no_bell_is_seen_within_one_look_however_many_wait() {
    let shop = Shop::new();
    let queue = shop.queue(QueuePolicy::default());
    shop.join("r", 100, &["m"]);
    shop.open.store(false, Ordering::SeqCst);
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.wait(waiter("m")).await.map(std::mem::forget) })
        })
        .collect();
    tokio::time::sleep(QueuePolicy::LOOK / 2).await;
    assert_eq!(queue.depth(), 50);
    // Whoever watched goes, time and again; the watch goes on.
    for task in &tasks[..20] {
        task.abort();
        tokio::task::yield_now().await;
    }
    let before = shop.picks.load(Ordering::SeqCst);
    tokio::time::sleep(10 * QueuePolicy::LOOK).await;
    let looks = shop.picks.load(Ordering::SeqCst) - before;
    assert_eq!(looks, 10, "one look each time, for all together");
    shop.open.store(true, Ordering::SeqCst);
    tokio::time::sleep(QueuePolicy::LOOK).await;
    assert_eq!((queue.depth(), shop.in_flight()), (0, 30));
}

fn runner_with(label: &str) -> RunnerSpec {
    RunnerSpec::new(RunnerId::new(label).unwrap()).slots(1).label(label, "yes")
}

#[tokio::test(start_paused = true)]
async fn special_ones_are_not_asked_about_what_they_cannot_use() {
    let shop = Shop::new();
    let queue = shop.queue(BLIND);
    shop.join_as(runner_with("a"), &["m"]);
    let holds_a = shop.take("m");
    shop.join_as(runner_with("b"), &["m"]);
    let holds_b = shop.take("m");
    let line: Vec<_> = (0..200).map(|_| begin(&queue, labelled("m", "a"))).collect();
    shop.picks.store(0, Ordering::SeqCst);
    let mut last = begin(&queue, labelled("m", "b"));
    assert_eq!(shop.picks.load(Ordering::SeqCst), 1, "the newcomer, and nobody else");
    drop(holds_b);
    assert_eq!(shop.picks.load(Ordering::SeqCst), 2);
    drop((handed(&mut last), line, holds_a));
}

#[tokio::test(start_paused = true)]
async fn those_behind_many_special_ones_are_asked_with_the_next_look() {
    let shop = Shop::new();
    let queue = shop.queue(QueuePolicy::default());
    shop.join_as(runner_with("a"), &["m"]);
    let holds_a = shop.take("m");
    let line: Vec<_> = (0..QueuePolicy::VAIN).map(|_| begin(&queue, labelled("m", "a"))).collect();
    let key = shop.join_as(runner_with("b"), &["m"]);
    shop.registry.update(&key, RunnerChange::Drain(true));
    let mut last = begin(&queue, labelled("m", "b"));
    shop.picks.store(0, Ordering::SeqCst);
    shop.registry.update(&key, RunnerChange::Drain(false));
    assert_eq!(shop.picks.load(Ordering::SeqCst), QueuePolicy::VAIN, "not more at once");
    assert!(poll(&mut last).is_none());
    let watcher = tokio::spawn(futures_util::future::join_all(line));
    let start = Instant::now();
    let reservation = last.await.unwrap();
    assert!(start.elapsed() <= QueuePolicy::LOOK);
    assert_eq!(queue.depth(), QueuePolicy::VAIN);
    watcher.abort();
    drop((reservation, holds_a));
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_visible() {
    let shop = Shop::new();
    let queue = shop.queue(QueuePolicy { max_waiting: 100, ..BLIND });
    shop.join("r", 1, &["x", "y"]);
    let taken = shop.take("x").unwrap();
    let mut first = begin(&queue, of("x", "a", Priority::High));
    advance(2 * SECOND).await;
    let line: Vec<_> = (0..3).map(|_| begin(&queue, waiter("y"))).collect();
    let second = begin(&queue, Waiter { tenant: tenant("a"), ..waiter("x") });
    drop(taken);
    let held = handed(&mut first);
    advance(SECOND).await;
    let report = queue.report();
    assert_eq!((report.waiting, report.max_waiting, report.more_lanes), (4, 100, 0));
    assert_eq!(report.by_priority, [0, 4, 0]);
    let lanes: Vec<_> = report
        .lanes
        .iter()
        .map(|LaneReport { model, waiting, oldest, slots_per_s, .. }| {
            (model.as_ref().unwrap().as_str(), *waiting, *oldest, *slots_per_s)
        })
        .collect();
    assert_eq!(lanes, [("y", 3, SECOND, None), ("x", 1, SECOND, Some(0.5))]);
    drop((line, second, held));
    assert_eq!(queue.report().lanes, []);
}
