//! Sources at work, and inventories that tell what a test tells them.
#![allow(dead_code, unreachable_pub)] // each test file uses some of it

use std::sync::Arc;

use async_trait::async_trait;
use gateway_core::{
    CancellationToken, FleetEvent, FleetEvents, InMemoryRegistry, Inventory, InventoryChange, Registry,
    Runner, RunnerSource,
};
use gateway_transport_http::{HttpRunner, HttpRunners};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::support::soon;

/// A source at work.
pub struct Running {
    pub registry: Arc<InMemoryRegistry>,
    pub stop: CancellationToken,
    pub task: JoinHandle<()>,
}

/// Runs a source over a registry of its own.
pub fn run(runners: HttpRunners) -> Running {
    let registry = Arc::new(InMemoryRegistry::new());
    let stop = CancellationToken::new();
    let task = tokio::spawn(Box::new(runners).run(registry.clone(), stop.clone()));
    Running { registry, stop, task }
}

impl Running {
    /// Waits until the registry is as it should be.
    pub async fn until(&self, what: &str, done: impl Fn(&[Arc<Runner>]) -> bool) {
        let mut events = self.registry.events();
        soon(what, async {
            while !done(self.registry.fleet().runners()) {
                events.next().await.unwrap();
            }
        })
        .await;
    }

    pub fn runner(&self) -> Arc<Runner> {
        self.registry.fleet().runners()[0].clone()
    }

    pub async fn stopped(self) -> Arc<InMemoryRegistry> {
        self.stop.cancel();
        soon("stopping", self.task).await.unwrap();
        self.registry
    }
}

/// An inventory that tells what the test sends.
pub struct Told(mpsc::Receiver<InventoryChange<HttpRunner>>);

#[async_trait]
impl Inventory for Told {
    type Entry = HttpRunner;

    async fn next(&mut self) -> Option<InventoryChange<HttpRunner>> {
        self.0.recv().await
    }
}

pub type Teller = mpsc::Sender<InventoryChange<HttpRunner>>;

pub fn told() -> (Teller, HttpRunners) {
    let (tell, told) = mpsc::channel(16);
    (tell, HttpRunners::from_inventory(Told(told)))
}

/// The next event of the fleet.
pub async fn next(events: &mut FleetEvents) -> FleetEvent {
    soon("an event", events.next()).await.unwrap()
}

/// A runner whose models are fixed: it joins before anybody has answered.
pub fn pinned(id: &str) -> HttpRunner {
    // Nobody listens there: probes fail at once.
    HttpRunner::new("http://127.0.0.1:1").unwrap().id(id).models(["m"])
}
