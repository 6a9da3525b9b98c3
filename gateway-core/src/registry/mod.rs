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
use crate::runner::{ModelChange, RunnerSpec, RunnerStatus};

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
        Self { registry, key, reason: LeaveReason::Disconnected }
    }

    /// Id and generation.
    pub fn key(&self) -> &RunnerKey {
        &self.key
    }

    /// Passes on what the runner says of itself. `false` if it has left already.
    pub fn status(&self, status: RunnerStatus) -> bool {
        self.registry.update(&self.key, RunnerChange::Status(status))
    }

    /// Sets the reason that is given when the membership ends.
    pub fn set_reason(&mut self, reason: LeaveReason) {
        self.reason = reason;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.registry.leave(&self.key, self.reason);
    }
}
