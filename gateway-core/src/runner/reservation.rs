use std::fmt;
use std::sync::Arc;

use super::Runner;

/// A slot held on a runner. Made by [`Runner::try_reserve`] only, cannot be cloned, and is given back by
/// dropping it and in no other way.
#[must_use = "dropping a reservation gives the slot back"]
pub struct Reservation {
    runner: Arc<Runner>,
}

impl Reservation {
    pub(super) fn new(runner: Arc<Runner>) -> Self {
        Self { runner }
    }

    /// The runner on which the slot is held.
    pub fn runner(&self) -> &Arc<Runner> {
        &self.runner
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.runner.live().give_back();
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reservation").field(self.runner.key()).finish()
    }
}
