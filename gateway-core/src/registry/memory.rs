use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::broadcast;
use tokio::time::Instant;

use super::departed::Departed;
use super::{FleetEvent, FleetEvents, LeaveReason, Registry, RunnerChange};
use crate::fleet::Fleet;
use crate::link::RunnerLink;
use crate::names::{Generation, RunnerKey};
use crate::runner::{Place, Runner, RunnerSpec, RunnerStatus};

/// The runners there are, in memory: snapshots without a lock for readers, a mutex for writers.
///
/// ```
/// use gateway_core::{InMemoryRegistry, Registry};
/// let registry = InMemoryRegistry::new();
/// assert!(registry.fleet().runners().is_empty());
/// ```
#[derive(Debug)]
pub struct InMemoryRegistry {
    fleet: ArcSwap<Fleet>,
    /// The lock is held while a writer makes the next snapshot.
    writer: Mutex<Writer>,
    events: broadcast::Sender<FleetEvent>,
}

#[derive(Debug, Default)]
struct Writer {
    /// The generation given out last.
    last: u64,
    departed: Departed,
}

impl InMemoryRegistry {
    /// An empty registry.
    pub fn new() -> Self {
        Self {
            fleet: ArcSwap::from_pointee(Fleet::new(Place::default())),
            writer: Mutex::default(),
            events: broadcast::Sender::new(FleetEvents::CAPACITY),
        }
    }

    fn publish(&self, event: FleetEvent) {
        // Fails when nobody listens, which is nobody's loss.
        let _ = self.events.send(event);
    }
}

impl Default for InMemoryRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry for InMemoryRegistry {
    fn fleet(&self) -> Arc<Fleet> {
        self.fleet.load_full()
    }

    fn events(&self) -> FleetEvents {
        FleetEvents::new(self.events.subscribe())
    }

    fn join(&self, spec: RunnerSpec, status: RunnerStatus, link: Arc<dyn RunnerLink>) -> RunnerKey {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.last += 1;
        let key = RunnerKey { id: spec.id.clone(), generation: Generation(writer.last) };
        let fleet = self.fleet.load_full();
        let old = fleet.by_id(&key.id);
        let now = Instant::now();
        // Looked up in any case: what has come back is forgotten.
        let departed = writer.departed.take(&key.id, now);
        // Whatever requests of its former self still use is used of the same machine.
        let still_used = old.map(|old| old.live().ledger().clone());
        let still_used = still_used.or_else(|| departed.as_ref()?.upgrade()).unwrap_or_default();
        let runner = Arc::new(Runner::new(key.clone(), spec, status, link, fleet.place(), still_used));
        if old.is_some_and(|old| old.is_draining()) {
            // An operator's word outlives a connection that is replaced.
            runner.live().set_draining(true);
        }
        if departed.is_some() || old.is_some() {
            runner.live().conduct().came_back(now);
        }
        self.fleet.store(Arc::new(fleet.replace(old, Some(runner))));
        if let Some(old) = old {
            old.live().leave();
            self.publish(FleetEvent::Left(old.key().clone(), LeaveReason::Replaced));
        }
        self.publish(FleetEvent::Joined(key.clone()));
        // Whoever is told may change the fleet in turn.
        drop(writer);
        fleet.bell().fleet_changed();
        key
    }

    fn update(&self, key: &RunnerKey, change: RunnerChange) -> bool {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let fleet = self.fleet.load_full();
        let Some(runner) = fleet.current(key) else { return false };
        match change {
            RunnerChange::Drain(draining) => {
                if runner.is_draining() == draining {
                    return true;
                }
                runner.live().set_draining(draining);
            }
            RunnerChange::Status(status) => {
                let is_more_free = runner.live().report(status.load, &status.resources);
                // A heartbeat that tells only of load and of what is free makes no new snapshot: most do.
                let Some(next) = runner.with_status(status) else {
                    drop(writer);
                    if is_more_free {
                        fleet.bell().slot_freed(runner);
                    }
                    return true;
                };
                runner.live().change();
                self.fleet.store(Arc::new(fleet.replace(Some(runner), Some(Arc::new(next)))));
            }
            RunnerChange::Model(model, change) => {
                let Some(next) = runner.with_model_change(&model, &change) else { return false };
                runner.live().change();
                self.fleet.store(Arc::new(fleet.replace(Some(runner), Some(Arc::new(next)))));
            }
        }
        self.publish(FleetEvent::Changed(key.clone()));
        drop(writer);
        fleet.bell().fleet_changed();
        true
    }

    fn leave(&self, key: &RunnerKey, reason: LeaveReason) -> bool {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let fleet = self.fleet.load_full();
        let Some(runner) = fleet.current(key) else { return false };
        writer.departed.add(key.id.clone(), Arc::downgrade(runner.live().ledger()), Instant::now());
        self.fleet.store(Arc::new(fleet.replace(Some(runner), None)));
        runner.live().leave();
        self.publish(FleetEvent::Left(key.clone(), reason));
        drop(writer);
        fleet.bell().fleet_changed();
        true
    }
}
