//! The runners there are, and how they come and go.

mod departed;
mod events;
mod memory;

use std::sync::Arc;

pub use events::{FleetEvent, FleetEvents, LeaveReason};
pub use memory::InMemoryRegistry;

use crate::fleet::Fleet;
use crate::link::RunnerLink;
use crate::names::{ModelId, RunnerKey};
use crate::runner::{Live, ModelChange, ResourceReport, RunnerSpec, RunnerStatus};

/// Keeps the runners there are.
///
/// Readers take a [`Fleet`] on every request, so that must not lock or copy; writers are rare. Everything
/// is keyed by id *and* generation, so that the late end of a runner's old connection cannot touch the
/// registration that its new connection made.
///
/// Implement it to bring your own inventory; wrapping an [`InMemoryRegistry`] gives you the index and the
/// counters for nothing.
pub trait Registry: Send + Sync + 'static {
    /// The snapshot of this moment.
    fn fleet(&self) -> Arc<Fleet>;

    /// Changes from now on.
    fn events(&self) -> FleetEvents;

    /// Adds a runner. One with the same id is replaced: it leaves with [`LeaveReason::Replaced`], its
    /// counters stay its own, and requests that it carries go on.
    fn join(&self, spec: RunnerSpec, status: RunnerStatus, link: Arc<dyn RunnerLink>) -> RunnerKey;

    /// Applies a change. `false` if that registration has left already, or it is a change that a model's
    /// state does not allow (see [`ModelChange`]); then nothing happens.
    fn update(&self, key: &RunnerKey, change: RunnerChange) -> bool;

    /// Removes a runner. `false` if that registration has left already; then nothing happens.
    fn leave(&self, key: &RunnerKey, reason: LeaveReason) -> bool;
}

/// What can change of a runner while it is registered.
#[derive(Debug, Clone, PartialEq)]
pub enum RunnerChange {
    /// It said how it is.
    Status(RunnerStatus),
    /// Send it nothing new (`true`), or new requests again (`false`).
    Drain(bool),
    /// The gateway does something to one of its models, or has learnt something of it.
    Model(ModelId, ModelChange),
}

/// A registration that leaves when it is dropped, unless it was replaced before.
#[must_use = "dropping a membership removes the runner"]
pub struct Membership {
    registry: Arc<dyn Registry>,
    key: RunnerKey,
    reason: LeaveReason,
    settled: Option<Settled>,
}

/// A status that changed nothing when it was passed on.
struct Settled {
    status: Arc<RunnerStatus>,
    live: Arc<Live>,
    /// What the runner has become since is told from this.
    changes: u64,
}

impl Membership {
    /// Joins a runner for as long as the membership is held.
    pub fn join(
        registry: Arc<dyn Registry>,
        spec: RunnerSpec,
        status: RunnerStatus,
        link: Arc<dyn RunnerLink>,
    ) -> Self {
        let key = registry.join(spec, status, link);
        Self { registry, key, reason: LeaveReason::Disconnected, settled: None }
    }

    /// Id and generation.
    pub fn key(&self) -> &RunnerKey {
        &self.key
    }

    /// Passes on what the runner says of itself. `false` if it has left already.
    pub fn status(&self, status: RunnerStatus) -> bool {
        self.registry.update(&self.key, RunnerChange::Status(status))
    }

    /// The same for a status that may be the very one of the last time, as most heartbeats of an idle runner are: then
    /// nobody is looked up and nothing compared. The registry is not told of it, unless something about the runner has
    /// changed in between, or it has more to say than its load.
    pub fn heartbeat(&mut self, status: &Arc<RunnerStatus>) -> bool {
        if let Some(settled) = self.settled.as_ref().filter(|settled| settled.is(status)) {
            settled.live.report(status.load, &status.resources);
            return !settled.live.has_left();
        }
        let live = self.registry.fleet().current(&self.key).map(|runner| runner.live().clone());
        let before = live.as_ref().map(|live| live.changes());
        let is_in = self.status(RunnerStatus::clone(status));
        // What changed it just now may still come to nothing, such as an order that was given in the same moment.
        self.settled = live.filter(|live| Some(live.changes()) == before).map(|live| Settled {
            changes: live.changes(),
            status: status.clone(),
            live,
        });
        is_in
    }

    /// Sets the reason that is given when the membership ends.
    pub fn set_reason(&mut self, reason: LeaveReason) {
        self.reason = reason;
    }
}

impl Settled {
    fn is(&self, status: &Arc<RunnerStatus>) -> bool {
        // What is free of a machine is known to those who wait for it, who are told by the registry.
        let says_more = status.resources != ResourceReport::default();
        Arc::ptr_eq(&self.status, status) && self.live.changes() == self.changes && !says_more
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.registry.leave(&self.key, self.reason);
    }
}
