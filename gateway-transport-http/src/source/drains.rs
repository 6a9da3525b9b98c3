//! Who drains because the inventory has it no more, so that one who comes back is not taken for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gateway_core::{
    LeaveReason, Membership, Registry, RunnerChange, RunnerId, RunnerKey, RunnerLink, RunnerSpec,
    RunnerStatus,
};

/// The registrations of one source that drain.
///
/// A registration that replaces a draining one drains too: that is how an operator's word outlives a
/// reconnect. Our own word must not, or a runner that comes back while its old self drains would never serve.
#[derive(Debug, Default)]
pub(super) struct Drains(Mutex<HashMap<RunnerId, RunnerKey>>);

impl Drains {
    /// Lets nothing new go to a registration. One that an operator drains already stays the operator's.
    pub(super) fn begin(&self, registry: &dyn Registry, key: &RunnerKey) {
        let mut ours = self.lock();
        let fleet = registry.fleet();
        let Some(runner) = fleet.runner(key.id.as_str()).filter(|runner| runner.key() == key) else { return };
        if !runner.is_draining() {
            ours.insert(key.id.clone(), key.clone());
            registry.update(key, RunnerChange::Drain(true));
        }
    }

    /// Joins a runner, in place of its old self if there is one, unless `wanted` says no.
    ///
    /// Under the same lock as [`begin`](Drains::begin), so that the two cannot cross.
    pub(super) fn join(
        &self,
        registry: &Arc<dyn Registry>,
        (spec, status): (RunnerSpec, RunnerStatus),
        link: Arc<dyn RunnerLink>,
        wanted: impl FnOnce() -> bool,
    ) -> Option<Membership> {
        let mut ours = self.lock();
        if !wanted() {
            return None;
        }
        if let Some(old) = ours.remove(&spec.id) {
            registry.leave(&old, LeaveReason::Replaced);
        }
        Some(Membership::join(registry.clone(), spec, status, link))
    }

    /// The registration has drained.
    pub(super) fn end(&self, key: &RunnerKey) {
        let mut ours = self.lock();
        if ours.get(&key.id) == Some(key) {
            ours.remove(&key.id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RunnerId, RunnerKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
