use std::sync::Arc;

use super::drain::Drain;
use super::{Deadlines, Dispatcher, Observer, RetryPolicy, Shared};
use crate::balance::{Balancer, LeastLoaded};
use crate::registry::Registry;
use crate::router::{CapabilityRouter, Router};

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

    /// The dispatcher.
    pub fn build(self) -> Dispatcher {
        let Self { registry, router, balancer, observers, deadlines, retry } = self;
        let drain = Arc::new(Drain::default());
        let shared = Shared { registry, router, balancer, observers, deadlines, retry, drain };
        Dispatcher { shared: Arc::new(shared) }
    }
}
