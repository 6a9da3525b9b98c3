//! A queue over real runners, with the least picker there can be.

#![allow(dead_code, unreachable_pub)]

use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use gateway_core::{
    AdmissionQueue, Attempt, Balancer, Candidates, CapabilityRouter, Fleet, InMemoryRegistry, LeaveReason,
    ModelId, Observer, Picker, Pool, Priority, QueueError, QueuePolicy, Registry, Requirements, Reservation,
    RoundRobin, Router, Runner, RunnerId, RunnerKey, RunnerSpec, RunnerStatus, Tenant, Tried, WaitEnd,
    Waited, Waiter,
};
use gateway_testkit::{MockEngine, Script};

pub fn model(name: &str) -> ModelId {
    ModelId::new(name).unwrap()
}

pub fn tenant(name: &str) -> Option<Tenant> {
    Some(Tenant::new(name).unwrap())
}

#[derive(Debug, Clone)]
pub struct Wants {
    pub requirements: Requirements,
    pub tried: Vec<Tried>,
}

/// The runners, and who chooses among them.
#[derive(Clone)]
pub struct Shop(Arc<Inside>);

pub struct Inside {
    pub registry: InMemoryRegistry,
    balancer: Box<dyn Balancer>,
    /// Closed, nothing can be picked; opening it rings no bell.
    pub open: AtomicBool,
    pub picks: AtomicUsize,
}

impl Deref for Shop {
    type Target = Inside;

    fn deref(&self) -> &Inside {
        &self.0
    }
}

pub type Queue = AdmissionQueue<Shop>;

impl Shop {
    pub fn new() -> Self {
        Self::balanced(RoundRobin::default())
    }

    pub fn balanced(balancer: impl Balancer) -> Self {
        Self(Arc::new(Inside {
            registry: InMemoryRegistry::new(),
            balancer: Box::new(balancer),
            open: AtomicBool::new(true),
            picks: AtomicUsize::new(0),
        }))
    }

    pub fn queue(&self, policy: QueuePolicy) -> Arc<Queue> {
        self.watched_queue(policy, Vec::new())
    }

    pub fn watched_queue(&self, policy: QueuePolicy, observers: Vec<Arc<dyn Observer>>) -> Arc<Queue> {
        AdmissionQueue::new(policy, self.fleet().bell().clone(), self.clone(), observers)
    }

    pub fn fleet(&self) -> Arc<Fleet> {
        self.registry.fleet()
    }

    fn now(&self, runner: &Runner) -> Option<Arc<Runner>> {
        let fleet = self.fleet();
        fleet.runner(runner.id().as_str()).filter(|now| now.key() == runner.key()).cloned()
    }

    /// A runner with these models.
    pub fn join(&self, id: &str, slots: u32, models: &[&str]) -> RunnerKey {
        self.join_as(RunnerSpec::new(RunnerId::new(id).unwrap()).slots(slots), models)
    }

    pub fn join_as(&self, spec: RunnerSpec, models: &[&str]) -> RunnerKey {
        let status = RunnerStatus::serving(models.iter().map(|name| model(name)));
        self.registry.join(spec, status, MockEngine::new(|_| Script::text("")).link())
    }

    pub fn leave(&self, key: &RunnerKey) {
        assert!(self.registry.leave(key, LeaveReason::Disconnected));
    }

    /// What a newcomer would get.
    pub fn take(&self, name: &str) -> Option<Reservation> {
        self.pick(&wants(name))
    }

    fn look<T>(&self, wants: &Wants, look: impl Fn(Pool<'_>, &Candidates<'_>) -> Option<T>) -> Option<T> {
        let fleet = self.fleet();
        let pool = CapabilityRouter.pool(&wants.requirements, &fleet);
        look(pool, &Candidates::new(pool, &CapabilityRouter, &wants.requirements, &wants.tried))
    }

    pub fn in_flight(&self) -> u32 {
        self.fleet().runners().iter().map(|runner| runner.load().in_flight).sum()
    }
}

impl Picker for Shop {
    type Wants = Wants;
    type Choice = Reservation;

    fn pick(&self, wants: &Wants) -> Option<Reservation> {
        self.picks.fetch_add(1, Ordering::SeqCst);
        if !self.open.load(Ordering::SeqCst) {
            return None;
        }
        self.look(wants, |_, candidates| self.balancer.pick(&wants.requirements, candidates))
    }

    fn concerns(&self, model: &ModelId, runner: &Runner) -> bool {
        self.now(runner).is_some_and(|runner| runner.model(model.as_str()).is_some())
    }

    fn may_serve(&self, wants: &Wants, runner: &Runner) -> bool {
        let Some(runner) = self.now(runner) else { return false };
        self.look(wants, |_, candidates| candidates.refusal(&runner).is_none().then_some(())).is_some()
    }

    fn is_full(&self, wants: &Wants) -> bool {
        let free = |pool: Pool<'_>, candidates: &Candidates<'_>| {
            pool.runners().iter().find(|runner| candidates.refusal(runner).is_none()).map(drop)
        };
        !self.open.load(Ordering::SeqCst) || self.look(wants, free).is_none()
    }

    fn is_hopeless(&self, wants: &Wants) -> bool {
        self.look(wants, |_, candidates| candidates.iter().next().map(drop)).is_none()
    }
}

pub fn wants(name: &str) -> Wants {
    Wants { requirements: Requirements::model(model(name)), tried: Vec::new() }
}

pub fn waiter(name: &str) -> Waiter<Wants> {
    Waiter::new(wants(name), Some(model(name)))
}

pub fn of(name: &str, tenant_name: &str, priority: Priority) -> Waiter<Wants> {
    Waiter { tenant: tenant(tenant_name), priority, ..waiter(name) }
}

/// One who needs a label too.
pub fn labelled(name: &str, label: &str) -> Waiter<Wants> {
    let mut waiter = Waiter { special: true, ..waiter(name) };
    waiter.wants.requirements.labels.insert(label.to_owned(), "yes".to_owned());
    waiter
}

/// Never looks by itself: what is handed out then was handed over.
pub const BLIND: QueuePolicy =
    QueuePolicy { max_waiting: 1024, look: Duration::MAX, patience: Duration::MAX, ..QueuePolicy::OFF };

pub type Waiting = Pin<Box<dyn Future<Output = Result<Reservation, QueueError>> + Send>>;

/// Begins to wait: the place is taken when this returns.
pub fn begin(queue: &Arc<Queue>, waiter: Waiter<Wants>) -> Waiting {
    let queue = queue.clone();
    let mut waiting: Waiting = Box::pin(async move { queue.wait(waiter).await });
    assert!(poll(&mut waiting).is_none(), "did not have to wait");
    waiting
}

/// One look at whether it has been handed something.
pub fn poll(waiting: &mut Waiting) -> Option<Result<Reservation, QueueError>> {
    match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

/// What it has been handed.
pub fn handed(waiting: &mut Waiting) -> Reservation {
    poll(waiting).expect("still waits").expect("handed a slot")
}

/// Hears how waiting ends.
#[derive(Default)]
pub struct Ear(pub Mutex<Vec<(WaitEnd, Duration)>>);

impl Observer for Ear {
    fn attempt(&self, _: &Attempt<'_>) {}

    fn waited(&self, waited: &Waited<'_>) {
        self.0.lock().unwrap().push((waited.end, waited.waited));
    }
}

impl Ear {
    pub fn ends(&self) -> Vec<WaitEnd> {
        self.0.lock().unwrap().iter().map(|(end, _)| *end).collect()
    }
}
