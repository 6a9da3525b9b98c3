//! Nobody sleeps on a free slot, whatever happens in whatever order and whatever a balancer does. The queues
//! here never look again by themselves, so that nothing is found by luck.

mod shop;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway_core::{
    Balancer, Candidates, Picker, Priority, QueuePolicy, Registry, Requirements, Reservation, RoundRobin,
    Runner, RunnerChange, RunnerId, RunnerKey, RunnerSpec, RunnerStatus, Tried, Waiter,
};
use proptest::collection::vec;
use proptest::prelude::*;
use shop::{BLIND, Queue, Shop, Waiting, Wants, begin, handed, labelled, model, of, poll, waiter};

#[derive(Debug, Clone)]
enum Op {
    Enter {
        model: usize,
        tenant: u8,
        priority: usize,
        kind: Kind,
    },
    Go(usize),
    GiveBack(usize),
    Join {
        slots: u32,
        models: usize,
        label: bool,
    },
    Leave(usize),
    Drain(usize),
    /// It has other models now.
    Change {
        runner: usize,
        models: usize,
    },
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Plain,
    Labelled,
    /// It was tried on this runner.
    Tried(usize),
    /// Like all others, but a balancer may think otherwise.
    Long,
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop_oneof![4 => Just(Kind::Plain), 1 => Just(Kind::Labelled), 1 => (0..4usize).prop_map(Kind::Tried), 1 => Just(Kind::Long)];
    prop_oneof![
        8 => (0..2usize, 0..3u8, 0..3usize, kind)
            .prop_map(|(model, tenant, priority, kind)| Op::Enter { model, tenant, priority, kind }),
        2 => (0..8usize).prop_map(Op::Go),
        5 => (0..8usize).prop_map(Op::GiveBack),
        2 => (0..4u32, 0..3usize, any::<bool>()).prop_map(|(slots, models, label)| Op::Join { slots, models, label }),
        1 => (0..4usize).prop_map(Op::Leave),
        1 => (0..4usize).prop_map(Op::Drain),
        2 => (0..4usize, 0..3usize).prop_map(|(runner, models)| Op::Change { runner, models }),
    ]
}

const MODELS: [&str; 2] = ["x", "y"];
const SETS: [&[&str]; 3] = [&MODELS, &[MODELS[0]], &[MODELS[1]]];

struct World {
    shop: Shop,
    queue: Arc<Queue>,
    runners: Vec<RunnerKey>,
    joined: usize,
    waiting: Vec<(Wants, Waiting)>,
    held: Vec<Reservation>,
}

impl World {
    fn step(&mut self, op: Op) {
        match op {
            Op::Enter { model, tenant, priority, kind } => self.enter(model, tenant, priority, kind),
            Op::Go(at) if at < self.waiting.len() => drop(self.waiting.remove(at)),
            Op::GiveBack(at) if at < self.held.len() => drop(self.held.remove(at)),
            Op::Join { slots, models, label } if self.runners.len() < 4 => {
                let id = RunnerId::new(format!("r{}", self.joined)).unwrap();
                self.joined += 1;
                let mut spec = RunnerSpec::new(id).slots(slots.max(1));
                if label {
                    spec = spec.label("gpu", "yes");
                }
                self.runners.push(self.shop.join_as(spec, SETS[models]));
            }
            Op::Leave(at) if at < self.runners.len() => self.shop.leave(&self.runners.remove(at)),
            Op::Drain(at) if at < self.runners.len() => {
                let key = &self.runners[at];
                let drains = self.shop.fleet().runner(key.id.as_str()).unwrap().is_draining();
                self.shop.registry.update(key, RunnerChange::Drain(!drains));
            }
            Op::Change { runner, models } if runner < self.runners.len() => {
                let status = RunnerStatus::serving(SETS[models].iter().map(|name| model(name)));
                self.shop.registry.update(&self.runners[runner], RunnerChange::Status(status));
            }
            _ => {}
        }
    }

    fn enter(&mut self, model: usize, tenant: u8, priority: usize, kind: Kind) {
        let name = MODELS[model];
        let mut waiter = of(name, &format!("t{tenant}"), Priority::ALL[priority]);
        match kind {
            Kind::Plain => {}
            Kind::Long => waiter.wants.requirements.workload.prompt_tokens = Some(LONG),
            Kind::Labelled => {
                waiter.special = true;
                waiter.wants = labelled(name, "gpu").wants;
            }
            Kind::Tried(at) => {
                waiter.special = true;
                let runner = self.runners.get(at).cloned();
                waiter.wants.tried.extend(runner.map(|runner| Tried { runner, sent: true }));
            }
        }
        // As the dispatcher does.
        let overtakes = self.queue.has_waiters(&waiter.model, waiter.special);
        if !overtakes && let Some(reservation) = self.shop.pick(&waiter.wants) {
            self.held.push(reservation);
            return;
        }
        let wants = waiter.wants.clone();
        let queue = self.queue.clone();
        let mut waiting: Waiting = Box::pin(async move { queue.wait(waiter).await });
        match poll(&mut waiting) {
            Some(reservation) => self.held.push(reservation.expect("patient")),
            None => self.waiting.push((wants, waiting)),
        }
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let mut still = Vec::new();
        for (wants, mut waiting) in std::mem::take(&mut self.waiting) {
            match poll(&mut waiting) {
                Some(reservation) => self.held.push(reservation.expect("patient")),
                None => still.push((wants, waiting)),
            }
        }
        self.waiting = still;
        prop_assert_eq!(self.queue.depth(), self.waiting.len());
        prop_assert_eq!(self.shop.fleet().bell().waiting(), self.waiting.len());
        let on_runners = self.shop.in_flight() as usize;
        let on_present = self.held.iter().filter(|held| !held.runner().has_left()).count();
        prop_assert_eq!(on_runners, on_present);
        for (wants, _) in &self.waiting {
            let free = self.shop.pick(wants);
            prop_assert!(free.is_none(), "{wants:?} sleeps although {free:?} was free");
        }
        Ok(())
    }
}

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// After each step: if a slot is free that some waiter could use, that waiter has been handed it.
    #[test]
    fn whatever_happens(strategy in 0..3u8, ops in vec(op(), 1..80)) {
        let runtime = paused();
        let _inside = runtime.enter();
        let shop = match strategy {
            0 => Shop::new(),
            1 => Shop::balanced(TakesTwo::default()),
            _ => Shop::balanced(Choosy),
        };
        let queue = shop.queue(BLIND);
        let mut world =
            World { shop, queue, runners: Vec::new(), joined: 0, waiting: Vec::new(), held: Vec::new() };
        for op in ops {
            world.step(op);
            world.check()?;
        }
        while let Some(held) = world.held.pop() {
            drop(held);
            world.check()?;
        }
        world.waiting.clear();
        world.check()?;
        prop_assert_eq!(world.shop.in_flight(), 0);
    }
}

/// Reserves two and gives one back, inside the pick.
#[derive(Default)]
struct TakesTwo(RoundRobin);

impl Balancer for TakesTwo {
    fn name(&self) -> &'static str {
        "takes-two"
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let first = self.0.pick(requirements, candidates);
        let second = self.0.pick(requirements, candidates);
        drop(first.is_some().then_some(second));
        first
    }
}

#[tokio::test(start_paused = true)]
async fn a_balancer_that_takes_two_and_drops_one_neither_blocks_nor_leaves_anybody_out() {
    let shop = Shop::balanced(TakesTwo::default());
    let queue = shop.queue(BLIND);
    for id in ["a", "b", "c"] {
        shop.join(id, 1, &["m"]);
    }
    let held: Vec<_> = (0..3).map(|_| shop.take("m").unwrap()).collect();
    let mut line: Vec<_> = (0..5).map(|_| begin(&queue, waiter("m"))).collect();
    drop(held);
    let held: Vec<_> = line[..3].iter_mut().map(handed).collect();
    assert!(line[3..].iter_mut().all(|waiting| poll(waiting).is_none()));
    drop(held);
    let held: Vec<_> = line[3..].iter_mut().map(handed).collect();
    drop(held);
    assert_eq!(shop.in_flight(), 0);
}

const LONG: u32 = 100_000;

/// Lets only machines with a GPU do long ones.
struct Choosy;

impl Balancer for Choosy {
    fn name(&self) -> &'static str {
        "choosy"
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let is_long = requirements.workload.prompt_tokens == Some(LONG);
        let will_do = |runner: &Runner| !is_long || runner.spec().labels.contains_key("gpu");
        candidates.iter().filter(|(_, runner)| will_do(runner)).find_map(|(at, _)| candidates.try_reserve(at))
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_the_balancer_will_not_serve_does_not_block_the_others() {
    let shop = Shop::balanced(Choosy);
    let queue = shop.queue(BLIND);
    shop.join("r", 2, &["m"]);
    let taken = [shop.take("m").unwrap(), shop.take("m").unwrap()];
    let mut long = waiter("m");
    long.wants.requirements.workload.prompt_tokens = Some(LONG);
    let mut first = begin(&queue, long);
    let mut line = [begin(&queue, waiter("m")), begin(&queue, waiter("m"))];
    drop(taken);
    let held: Vec<_> = line.iter_mut().map(handed).collect();
    assert!(poll(&mut first).is_none());
    drop((held, first));
}

/// Reserves, and thinks better of it.
struct NeverMind;

impl Balancer for NeverMind {
    fn name(&self) -> &'static str {
        "never-mind"
    }

    fn pick(&self, _: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        drop(candidates.try_reserve(0));
        None
    }
}

#[tokio::test(start_paused = true)]
async fn a_balancer_that_gives_back_what_it_took_is_not_asked_for_ever() {
    let shop = Shop::balanced(NeverMind);
    let queue = shop.queue(BLIND);
    let key = shop.join("r", 1, &["m"]);
    let waiting = [begin(&queue, waiter("m")), begin(&queue, waiter("m"))];
    let before = shop.picks.load(Ordering::SeqCst);
    drop(shop.fleet().runner(key.id.as_str()).unwrap().try_reserve());
    // Each twice, because there seems to be a slot for others, and then no more.
    assert_eq!(shop.picks.load(Ordering::SeqCst) - before, 4);
    drop(waiting);
}

/// Panics when it is told to, once.
#[derive(Clone, Default)]
struct Moody(Arc<AtomicBool>);

impl Balancer for Moody {
    fn name(&self) -> &'static str {
        "moody"
    }

    fn pick(&self, _: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        assert!(!self.0.swap(false, Ordering::SeqCst), "in a mood");
        candidates.try_reserve(0)
    }
}

#[tokio::test(start_paused = true)]
async fn a_balancer_that_panics_stops_nothing() {
    let moody = Moody::default();
    let shop = Shop::balanced(moody.clone());
    let queue = shop.queue(QueuePolicy::default());
    shop.join("r", 1, &["m"]);
    let taken = shop.take("m").unwrap();
    let waiting = tokio::spawn(begin(&queue, waiter("m")));
    tokio::task::yield_now().await;
    moody.0.store(true, Ordering::SeqCst);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(taken)));
    assert!(panicked.is_err());
    // The next look serves.
    let reservation = waiting.await.unwrap().unwrap();

    // A thread that panics already leaves it to others, lest the process ends.
    let waiting = tokio::spawn(begin(&queue, waiter("m")));
    tokio::task::yield_now().await;
    moody.0.store(true, Ordering::SeqCst);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _held = reservation;
        panic!("with a slot in hand");
    }));
    assert!(panicked.is_err());
    assert!(waiting.await.unwrap_err().is_panic(), "the deputy found out");
    assert_eq!((queue.depth(), shop.in_flight()), (0, 0));
}

/// Lets go of a waiting while it picks for it.
#[derive(Clone, Default)]
struct Meanwhile(Arc<Mutex<Option<Waiting>>>);

impl Balancer for Meanwhile {
    fn name(&self) -> &'static str {
        "meanwhile"
    }

    fn pick(&self, _: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let reservation = candidates.try_reserve(0)?;
        drop(self.0.lock().unwrap().take());
        Some(reservation)
    }
}

#[tokio::test(start_paused = true)]
async fn who_goes_while_a_slot_is_picked_for_it_leaves_it_to_the_next() {
    let meanwhile = Meanwhile::default();
    let shop = Shop::balanced(meanwhile.clone());
    let queue = shop.queue(BLIND);
    shop.join("r", 1, &["m", "other"]);
    let taken = shop.take("m").unwrap();
    *meanwhile.0.lock().unwrap() = Some(begin(&queue, waiter("m")));
    let mut next = begin(&queue, waiter("other"));
    drop(taken);
    assert_eq!((queue.depth(), shop.in_flight()), (0, 1));
    drop(handed(&mut next));
    assert_eq!(shop.in_flight(), 0);
}

/// Many threads come, wait, lose patience, and go, over runners that come and go too. One lost slot would
/// leave somebody waiting for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_leaves_nobody_asleep_and_nothing_behind() {
    const CLIENTS: usize = 64;
    const ROUNDS: usize = 200;
    let shop = Shop::balanced(TakesTwo::default());
    let queue = shop.queue(BLIND);
    shop.join("steady", 3, &["m"]);
    let (served, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let (shop, queue) = (shop.clone(), queue.clone());
        let (served, gone) = (served.clone(), gone.clone());
        clients.spawn(async move {
            let mut rng = fastrand::Rng::with_seed(number as u64);
            for _ in 0..ROUNDS {
                let priority = Priority::ALL[rng.usize(..3)];
                let waiter = of("m", &format!("t{}", number % 5), priority);
                // Some go, at any moment: before they were handed anything, and after.
                let steps = if rng.u8(..4) == 0 { Some(rng.usize(..6)) } else { None };
                let reservation = match one(&shop, &queue, waiter, steps).await {
                    Some(reservation) => reservation,
                    None => {
                        gone.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                };
                served.fetch_add(1, Ordering::Relaxed);
                for _ in 0..rng.usize(..3) {
                    tokio::task::yield_now().await;
                }
                drop(reservation);
            }
        });
    }
    let over = Arc::new(AtomicBool::new(false));
    let flapping = tokio::spawn({
        let (shop, over) = (shop.clone(), over.clone());
        async move {
            while !over.load(Ordering::Relaxed) {
                let key = shop.join("flapping", 2, &["m"]);
                tokio::task::yield_now().await;
                shop.leave(&key);
                tokio::task::yield_now().await;
            }
        }
    });
    let all = async {
        while let Some(done) = clients.join_next().await {
            done.unwrap()
        }
    };
    // No measure of speed: the storm takes about a second, and one asleep takes for ever.
    tokio::time::timeout(Duration::from_secs(120), all).await.expect("somebody sleeps on a free slot");
    over.store(true, Ordering::Relaxed);
    flapping.await.unwrap();
    let (served, gone) = (served.load(Ordering::Relaxed), gone.load(Ordering::Relaxed));
    assert_eq!(served + gone, CLIENTS * ROUNDS);
    assert!(served > 0 && gone > 0, "{served} served, {gone} gone");
    assert_eq!((queue.depth(), shop.fleet().bell().waiting(), shop.in_flight()), (0, 0, 0));
    assert_eq!(queue.report().lanes, []);
}

/// One client: gives up after so many steps, if it does.
async fn one(
    shop: &Shop,
    queue: &Arc<Queue>,
    waiter: Waiter<Wants>,
    steps: Option<usize>,
) -> Option<Reservation> {
    if !queue.has_waiters(&waiter.model, waiter.special)
        && let Some(reservation) = shop.pick(&waiter.wants)
    {
        return Some(reservation);
    }
    let waiting = queue.wait(waiter);
    let Some(steps) = steps else { return Some(waiting.await.expect("patient")) };
    let mut waiting = Box::pin(waiting);
    for _ in 0..steps {
        tokio::select! {
            biased;
            reservation = &mut waiting => return Some(reservation.expect("patient")),
            () = tokio::task::yield_now() => {}
        }
    }
    None
}
