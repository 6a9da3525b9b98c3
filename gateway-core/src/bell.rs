//! Tells those who wait for a slot that one may be free.

mod headcount;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::runner::Runner;
use headcount::Headcount;

/// Named here so that a test can put loom's types in their place.
mod sync {
    pub(super) use std::sync::atomic::{AtomicUsize, Ordering, fence};
}

/// Is told when a slot may be free. Called where a [`Reservation`](crate::Reservation) is dropped or the
/// fleet changes, so it must neither wait nor take long; it may reserve runners itself.
pub trait Listener: Send + Sync + 'static {
    /// A slot of this runner was given back.
    fn slot_freed(&self, runner: &Arc<Runner>);

    /// Runners came, went or changed.
    fn fleet_changed(&self);
}

/// Shared by all runners of one registry, see [`Fleet::bell`](crate::Fleet::bell). Silent, and almost free,
/// while nobody waits.
pub struct Bell {
    waiting: Headcount,
    /// Those who wait until a runner has nothing to do.
    idle_awaited: Headcount,
    listeners: Mutex<Vec<Weak<dyn Listener>>>,
}

impl Bell {
    /// Adds one who is told from now on, as long as it lives.
    pub fn listen(&self, listener: Weak<dyn Listener>) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(listener);
    }

    /// Counts one who waits, until the guard is dropped. Whoever looks for a free slot *after* this call
    /// either finds it or is told.
    pub fn wait(self: &Arc<Self>) -> Waiting {
        self.waiting.enter();
        Waiting(self.clone())
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// Counts one who waits until a runner has nothing to do, until the guard is dropped. Whoever looks after
    /// this call either finds it idle or is told.
    pub(crate) fn await_idle(&self) -> AwaitsIdle<'_> {
        self.idle_awaited.enter();
        AwaitsIdle(self)
    }

    /// Whether somebody waits until a runner has nothing to do. Asked after [`Bell::slot_freed`], which orders
    /// this look after the giving back.
    #[inline]
    pub(crate) fn is_idle_awaited(&self) -> bool {
        self.idle_awaited.get() > 0
    }

    pub(crate) fn slot_freed(&self, runner: &Arc<Runner>) {
        self.ring(|listener| listener.slot_freed(runner));
    }

    pub(crate) fn fleet_changed(&self) {
        self.ring(|listener| listener.fleet_changed());
    }

    #[inline]
    fn ring(&self, tell: impl Fn(&dyn Listener)) {
        if !self.waiting.is_anybody() {
            return;
        }
        // Told without the lock: a listener may reserve and drop, which rings again.
        let listeners: Vec<_> = {
            let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            listeners.iter().filter_map(Weak::upgrade).collect()
        };
        for listener in listeners {
            tell(&*listener);
        }
    }
}

impl Default for Bell {
    fn default() -> Self {
        Self { waiting: Headcount::new(), idle_awaited: Headcount::new(), listeners: Mutex::default() }
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

/// One who waits. Made by [`Bell::wait`].
#[must_use = "dropping it ends the waiting"]
#[derive(Debug)]
pub struct Waiting(Arc<Bell>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.leave();
    }
}

pub(crate) struct AwaitsIdle<'b>(&'b Bell);

impl Drop for AwaitsIdle<'_> {
    fn drop(&mut self) {
        self.0.idle_awaited.leave();
    }
}
