//! Reports come late and tell of a moment that nobody knows, requests are on their way, finish, break off: a modelled
//! runner is never given more than it has, and what it has is given.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::{
    InMemoryRegistry, Registry, Requirements, Reservation, ResourceReport, Resources, Runner, RunnerChange,
    RunnerId, RunnerSpec, RunnerStatus,
};
use gateway_testkit::{MockEngine, Script};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
enum Op {
    /// So many requests at once, each of which needs so many quarters of an accelerator.
    Burst {
        requests: usize,
        quarters: u64,
        arrives_ms: u64,
    },
    /// The runner is done with it and the answer is on its way.
    Finish(usize),
    /// The answer has been passed on.
    End(usize),
    /// It is broken off; the runner needs so long to notice.
    Cut(usize, u64),
    /// Others need so many quarters less.
    OthersGiveBack(u64),
    Ask,
    Measure,
    Arrive {
        tells_age: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let lag = prop_oneof![0..1_000_u64, Just(20_000)];
    prop_oneof![
        26 => plain(),
        2 => (any::<usize>(), lag).prop_map(|(which, lag)| Op::Cut(which, lag)),
        1 => (1..5_u64).prop_map(Op::OthersGiveBack),
    ]
}

/// Where answers end and others keep what they have.
fn plain() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (prop_oneof![3 => 1..4_usize, 1 => Just(50)], prop_oneof![Just(1), Just(2), Just(4)], 0..1_000_u64)
            .prop_map(|(requests, quarters, arrives_ms)| Op::Burst { requests, quarters, arrives_ms }),
        4 => any::<usize>().prop_map(Op::Finish),
        5 => any::<usize>().prop_map(Op::End),
        4 => Just(Op::Ask),
        4 => Just(Op::Measure),
        4 => any::<bool>().prop_map(|tells_age| Op::Arrive { tells_age }),
    ]
}

/// What happens, each so many milliseconds after the one before.
fn story(op: impl Strategy<Value = Op>) -> impl Strategy<Value = Vec<(u64, Op)>> {
    let gap = prop_oneof![3 => Just(0), 3 => 0..100_u64, 2 => 0..700_u64, 1 => 0..4_000_u64];
    vec((gap, op), 1..120)
}

/// One request as the runner sees it, in milliseconds.
#[derive(Debug)]
struct Job {
    quarters: u64,
    arrives: u64,
    finished: Option<u64>,
}

impl Job {
    fn is_there(&self, at: u64) -> bool {
        self.arrives <= at && self.finished.is_none_or(|finished| at < finished)
    }
}

struct World {
    registry: InMemoryRegistry,
    total: u64,
    others: u64,
    tells_total: bool,
    now: u64,
    jobs: Vec<Job>,
    held: BTreeMap<usize, Reservation>,
    asked: Option<u64>,
    measured: Option<(u64, u64)>,
}

fn gpus(quarters: u64) -> Resources {
    Resources { gpus: quarters as f64 / 4.0, cpus: 8.0, memory_gb: 64.0 }
}

fn asking(quarters: u64) -> Requirements {
    let resources = Resources { gpus: quarters as f64 / 4.0, ..Resources::default() };
    Requirements { resources: Some(resources), ..Requirements::default() }
}

impl World {
    /// Of a runner with so many quarters of accelerators, that has told once what is free.
    fn new(total: u64, others: u64, tells_total: bool) -> Self {
        let mut world = Self {
            registry: InMemoryRegistry::new(),
            total,
            others: others.min(total),
            tells_total,
            now: 0,
            jobs: Vec::new(),
            held: BTreeMap::new(),
            asked: None,
            measured: None,
        };
        let status = RunnerStatus { resources: world.says(Some(0)), ..RunnerStatus::serving([]) };
        let link = MockEngine::new(|_| Script::text("")).link();
        world.registry.join(RunnerSpec::new(RunnerId::new("r").unwrap()), status, link);
        world
    }

    fn runner(&self) -> Arc<Runner> {
        self.registry.fleet().runners()[0].clone()
    }

    fn in_use(&self, at: u64) -> u64 {
        self.others + self.jobs.iter().filter(|job| job.is_there(at)).map(|job| job.quarters).sum::<u64>()
    }

    /// What the runner says of this moment.
    fn says(&mut self, max_age_ms: Option<u64>) -> ResourceReport {
        let free = self.total - self.in_use(self.now);
        self.says_free(free, max_age_ms)
    }

    fn says_free(&self, free: u64, max_age_ms: Option<u64>) -> ResourceReport {
        ResourceReport {
            total: self.tells_total.then(|| gpus(self.total)),
            available: Some(gpus(free)),
            max_age: max_age_ms.map(Duration::from_millis),
        }
    }

    fn report(&self, resources: ResourceReport) {
        let status = RunnerStatus { resources, ..RunnerStatus::serving([]) };
        assert!(self.registry.update(self.runner().key(), RunnerChange::Status(status)));
    }

    async fn step(&mut self, gap: u64, op: Op) {
        tokio::time::advance(Duration::from_millis(gap)).await;
        self.now += gap;
        match op {
            Op::Burst { requests, quarters, arrives_ms } => {
                for _ in 0..requests {
                    let Some(held) = self.runner().try_reserve_for(&asking(quarters)) else { break };
                    self.held.insert(self.jobs.len(), held);
                    self.jobs.push(Job { quarters, arrives: self.now + arrives_ms, finished: None });
                }
            }
            Op::Finish(which) => {
                if let Some(which) = self.nth(which) {
                    self.finish(which);
                }
            }
            Op::End(which) => {
                // An answer ends after the request has arrived.
                if let Some(which) = self.nth(which).filter(|which| self.jobs[*which].arrives <= self.now) {
                    self.finish(which);
                    self.held.remove(&which);
                }
            }
            Op::Cut(which, lag) => {
                if let Some(which) = self.nth(which) {
                    let mut held = self.held.remove(&which).unwrap();
                    held.broken_off();
                    let job = &mut self.jobs[which];
                    let noticed = self.now.max(job.arrives) + lag;
                    job.finished = Some(job.finished.unwrap_or(u64::MAX).min(noticed));
                }
            }
            Op::OthersGiveBack(quarters) => self.others = self.others.saturating_sub(quarters),
            Op::Ask => {
                (self.asked, self.measured) = (Some(self.now), None);
            }
            Op::Measure if self.asked.is_some() => {
                self.measured = Some((self.total - self.in_use(self.now), self.now));
            }
            Op::Arrive { tells_age } => {
                // A probe takes no longer than that.
                self.asked = self.asked.filter(|asked| self.now - asked <= 5_000);
                if let (Some(asked), Some((free, measured))) = (self.asked, self.measured) {
                    let tells_age = tells_age || self.now - measured > 2_000;
                    self.report(self.says_free(free, tells_age.then_some(self.now - asked)));
                    (self.asked, self.measured) = (None, None);
                }
            }
            Op::Measure => {}
        }
    }

    fn nth(&self, which: usize) -> Option<usize> {
        self.held.keys().nth(which % self.held.len().max(1)).copied()
    }

    fn finish(&mut self, which: usize) {
        let job = &mut self.jobs[which];
        if job.arrives <= self.now {
            job.finished.get_or_insert(self.now);
        }
    }

    fn free_quarters(&self) -> u64 {
        (self.runner().available_resources().unwrap().gpus * 4.0).round() as u64
    }

    /// Nobody ever arrived where there was not enough free for it.
    fn assert_never_too_much(&self, others: impl Fn(u64) -> u64) -> Result<(), TestCaseError> {
        for job in &self.jobs {
            let at = job.arrives;
            let used: u64 = self.jobs.iter().filter(|job| job.is_there(at)).map(|job| job.quarters).sum();
            prop_assert!(used + others(at) <= self.total, "{used} and {} at {at} ms", others(at));
        }
        Ok(())
    }
}

fn paused<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    /// Whatever is late, lost or broken off; and when nothing was sent for a while, one report is enough.
    #[test]
    fn nobody_is_sent_where_too_little_is_free(
        total in 0..17_u64,
        others in 0..17_u64,
        tells_total: bool,
        story in story(op()),
    ) {
        paused(async {
            let mut world = World::new(total, others, tells_total);
            let mut others = BTreeMap::from([(0, world.others)]);
            for (gap, op) in story {
                world.step(gap, op).await;
                others.insert(world.now, world.others);
            }
            world.step(1_500, Op::Ask).await;
            world.step(0, Op::Measure).await;
            let free = world.total - world.in_use(world.now);
            world.step(1, Op::Arrive { tells_age: true }).await;
            prop_assert_eq!(world.free_quarters(), free, "nothing moved for 1.5 s, so the report is exact");
            world.assert_never_too_much(|at| *others.range(..=at).next_back().unwrap().1)
        })?;
    }

    /// As long as answers end and others keep to what they have, nothing that is free is refused, however late
    /// the reports are.
    #[test]
    fn nothing_that_is_free_is_refused(
        total in 0..17_u64,
        others in 0..17_u64,
        tells_total: bool,
        story in story(plain()),
    ) {
        paused(async {
            let mut world = World::new(total, others, tells_total);
            for (gap, op) in story {
                world.step(gap, op).await;
                let held: u64 = world.held.keys().map(|which| world.jobs[*which].quarters).sum();
                prop_assert!(
                    world.free_quarters() >= (world.total - world.others).saturating_sub(held),
                    "{} of {} are free", world.free_quarters(), world.total
                );
            }
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn bursts_of_fifty_with_reports_two_seconds_old() {
    let mut world = World::new(8, 0, false);
    let mut served = 0;
    for round in 0..40 {
        world.step(100, Op::Ask).await;
        world.step(0, Op::Measure).await;
        world.step(100, Op::Burst { requests: 50, quarters: 4, arrives_ms: 300 }).await;
        assert_eq!(world.held.len(), 2, "round {round}");
        // The report from before the burst comes after it.
        world.step(1_800, Op::Arrive { tells_age: round % 2 == 0 }).await;
        assert_eq!(world.free_quarters(), 0, "round {round}");
        served += world.held.len();
        while !world.held.is_empty() {
            world.step(7, Op::End(0)).await;
        }
    }
    assert_eq!(served, 80);
    world.assert_never_too_much(|_| 0).unwrap();
}
