use std::sync::Arc;

use tokio::time::Instant;

use super::budgets::Budgets;
use super::choose::Chooser;
use super::waiting::NextChoice;
use super::{Deadlines, Dispatcher, HedgePolicy, Observer, RetryPolicy, Shared};
use crate::balance::{Balancer, LeastLoaded};
use crate::health::{HealthPolicy, Outliers};
use crate::lifecycle::{Lifecycle, LifecyclePolicy};
use crate::queue::{AdmissionQueue, QueuePolicy};
use crate::registry::Registry;
use crate::router::{CapabilityRouter, Router};
use crate::routes::ModelRoutes;

/// Puts a [`Dispatcher`] together.
///
/// ```
/// use std::sync::Arc;
/// use gateway_core::{Dispatcher, InMemoryRegistry, RoundRobin};
/// let dispatcher = Dispatcher::builder(Arc::new(InMemoryRegistry::new()))
///     .balancer(Arc::new(RoundRobin::default()))
///     .build();
/// assert_eq!(dispatcher.in_flight(), 0);
/// ```
#[must_use]
pub struct DispatcherBuilder {
    registry: Arc<dyn Registry>,
    router: Arc<dyn Router>,
    balancer: Arc<dyn Balancer>,
    observers: Vec<Arc<dyn Observer>>,
    deadlines: Deadlines,
    retry: RetryPolicy,
    hedge: Option<HedgePolicy>,
    routes: ModelRoutes,
    queue: QueuePolicy,
    health: HealthPolicy,
    lifecycle: LifecyclePolicy,
    before: Option<Dispatcher>,
}

impl DispatcherBuilder {
    pub(super) fn new(registry: Arc<dyn Registry>) -> Self {
        Self {
            registry,
            router: Arc::new(CapabilityRouter),
            balancer: Arc::new(LeastLoaded::default()),
            observers: Vec::new(),
            deadlines: Deadlines::default(),
            retry: RetryPolicy::default(),
            hedge: None,
            routes: ModelRoutes::default(),
            queue: QueuePolicy::default(),
            health: HealthPolicy::default(),
            lifecycle: LifecyclePolicy::default(),
            before: None,
        }
    }

    /// Who could serve; [`CapabilityRouter`] unless set.
    pub fn router(mut self, router: Arc<dyn Router>) -> Self {
        self.router = router;
        self
    }

    /// Who of those does; [`LeastLoaded`] unless set.
    pub fn balancer(mut self, balancer: Arc<dyn Balancer>) -> Self {
        self.balancer = balancer;
        self
    }

    /// Adds one who is told of every finished try.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers.push(observer);
        self
    }

    /// How long things may take.
    pub fn deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// When another runner is tried.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// When a request is sent to a second runner because the first takes long; never unless set.
    pub fn hedge(mut self, hedge: HedgePolicy) -> Self {
        self.hedge = Some(hedge);
        self
    }

    /// Names that stand for models; every name stands for itself unless set.
    pub fn routes(mut self, routes: ModelRoutes) -> Self {
        self.routes = routes;
        self
    }

    /// What decides whether a runner deserves requests: circuit breaker, holds, slow start, outliers.
    pub fn health(mut self, health: HealthPolicy) -> Self {
        self.health = health;
        self
    }

    /// How many requests may wait for a slot, and how long.
    pub fn queue(mut self, queue: QueuePolicy) -> Self {
        self.queue = queue;
        self
    }

    /// When models are loaded and unloaded; loaded on demand and never unloaded for being idle unless set.
    pub fn lifecycle(mut self, lifecycle: LifecyclePolicy) -> Self {
        self.lifecycle = lifecycle;
        self
    }

    /// Makes the dispatcher the successor of another over the same registry, for new settings while the program
    /// runs: requests that are under way or wait with the other go on by its settings, and the two are closed,
    /// counted and waited for together. Who waits for a model to be loaded and what was measured of runners is
    /// known to both; retry budgets begin anew.
    pub fn after(mut self, before: &Dispatcher) -> Self {
        self.before = Some(before.clone());
        self
    }

    /// The dispatcher.
    pub fn build(self) -> Dispatcher {
        let Self { registry, router, balancer, observers, deadlines, retry, hedge, routes, queue, .. } = self;
        let (health, policy) = (self.health, self.lifecycle);
        let before = self.before.map(|before| before.shared);
        let lifecycle = match &before {
            Some(before) => {
                before.lifecycle.go_by(router.clone(), health, policy, observers.clone());
                before.lifecycle.clone()
            }
            None => Lifecycle::observed(registry.clone(), router.clone(), health, policy, observers.clone()),
        };
        let chooser = Chooser { registry, router, balancer, health };
        let routes = Arc::new(routes);
        let bell = chooser.registry.fleet().bell().clone();
        let next = NextChoice { chooser: chooser.clone(), routes: routes.clone() };
        let queue = AdmissionQueue::new(queue, bell, next, observers.clone());
        let budgets = Budgets::new(&retry, hedge.as_ref());
        let drain = before.map_or_else(Arc::default, |before| before.drain.clone());
        let outliers = Outliers::new(Instant::now());
        let shared = Shared {
            chooser,
            observers,
            deadlines,
            retry,
            hedge,
            budgets,
            routes,
            queue,
            lifecycle,
            outliers,
            drain,
        };
        Dispatcher { shared: Arc::new(shared) }
    }
}
