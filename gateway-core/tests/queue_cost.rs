//! What it costs to hand out a freed slot does not grow with the fleet, nor what a look costs with those who
//! wait. Counted, not timed.

mod common;
mod shop;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::spec;
use gateway_core::{
    CapabilityRouter, Dispatcher, Fleet, InMemoryRegistry, LeastLoaded, ModelId, Pool, QueuePolicy, Refusal,
    Registry, Requirements, Reservation, Router, Runner, RunnerId, RunnerSpec, RunnerStatus,
};
use gateway_testkit::{MockEngine, Script, request};
use shop::{Shop, begin, labelled, poll};

/// Counts what it is asked of runners.
#[derive(Default)]
struct Counting {
    verdicts: AtomicUsize,
    inexact: bool,
}

impl Router for Counting {
    fn pool<'f>(&self, requirements: &Requirements, fleet: &'f Fleet) -> Pool<'f> {
        let pool = CapabilityRouter.pool(requirements, fleet);
        if self.inexact { pool.inexact() } else { pool }
    }

    fn verdict(&self, requirements: &Requirements, runner: &Runner) -> Result<(), Refusal> {
        self.verdicts.fetch_add(1, Ordering::Relaxed);
        CapabilityRouter.verdict(requirements, runner)
    }
}

fn m() -> ModelId {
    ModelId::new("m").unwrap()
}

/// So many runners with one slot each, all taken, and ten requests that wait. How many verdicts it costs to
/// hand over the slot of one of them.
async fn verdicts_per_freed_slot(runners: usize, inexact: bool) -> usize {
    let router = Arc::new(Counting { inexact, ..Counting::default() });
    let registry = Arc::new(InMemoryRegistry::new());
    let engine = MockEngine::new(|_| Script::chunks(["fine"]).interval(Duration::from_secs(3600)));
    for number in 0..runners {
        let spec = spec(&format!("r{number}")).slots(1);
        registry.join(spec, RunnerStatus::serving([m()]), engine.link());
    }
    let dispatcher = Dispatcher::builder(registry.clone())
        .router(router.clone())
        .balancer(Arc::new(LeastLoaded::default()))
        .queue(QueuePolicy { look: Duration::MAX, ..QueuePolicy::default() })
        .build();
    let fleet = registry.fleet();
    let mut held: Vec<Reservation> =
        fleet.runners().iter().map(|runner| runner.try_reserve().unwrap()).collect();
    let asked: Vec<_> = (0..10)
        .map(|_| {
            let dispatcher = dispatcher.clone();
            tokio::spawn(async move { dispatcher.dispatch(request(&m(), "{}")).await.map(drop) })
        })
        .collect();
    while dispatcher.queue_depth() < 10 {
        tokio::task::yield_now().await;
    }
    let freed = held.swap_remove(runners / 2);
    router.verdicts.store(0, Ordering::Relaxed);
    drop(freed);
    let verdicts = router.verdicts.load(Ordering::Relaxed);
    assert_eq!(dispatcher.queue_depth(), 9, "handed over");
    asked.iter().for_each(|asked| asked.abort());
    verdicts
}

#[tokio::test(start_paused = true)]
async fn a_freed_slot_costs_as_much_among_a_thousand_full_runners_as_among_ten() {
    for inexact in [false, true] {
        let few = verdicts_per_freed_slot(10, inexact).await;
        let many = verdicts_per_freed_slot(1000, inexact).await;
        assert_eq!(few, many);
        assert!(many <= 8, "{many} verdicts");
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_asks_some_of_the_special_ones_and_the_next_look_the_others() {
    const WAITING: usize = 200;
    let shop = Shop::new();
    let queue = shop.queue(QueuePolicy::default());
    for label in ["a", "b"] {
        let spec = RunnerSpec::new(RunnerId::new(label).unwrap()).slots(1).label(label, "yes");
        shop.join_as(spec, &["m"]);
    }
    let runner = shop.fleet().runner("a").unwrap().clone();
    let _holds_a = runner.try_reserve().unwrap();
    shop.open.store(false, Ordering::SeqCst);
    let line: Vec<_> = (0..WAITING).map(|_| begin(&queue, labelled("m", "a"))).collect();
    let mut last = begin(&queue, labelled("m", "b"));
    let watching = tokio::spawn(futures_util::future::join_all(line));
    tokio::time::sleep(QueuePolicy::LOOK / 2).await;
    for look in 0..5 {
        shop.picks.store(0, Ordering::SeqCst);
        tokio::time::sleep(QueuePolicy::LOOK).await;
        assert_eq!(shop.picks.load(Ordering::SeqCst), QueuePolicy::VAIN, "look {look}");
    }
    // What has become free without a word is found by whom it is for, wherever it stands.
    shop.open.store(true, Ordering::SeqCst);
    let looks = u32::try_from(WAITING / QueuePolicy::VAIN + 1).unwrap();
    tokio::time::sleep(looks * QueuePolicy::LOOK).await;
    assert!(poll(&mut last).is_some());
    watching.abort();
}
