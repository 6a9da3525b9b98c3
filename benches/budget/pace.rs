//! What the engine does next, told by the client: so the three of them stay in step.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How streams are answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Script {
    /// Chunks of a stream.
    pub(crate) chunks: usize,
    /// All in one write, as of an engine that is far ahead.
    pub(crate) together: bool,
    /// How many chunks of a stream may be sent by now.
    pub(crate) allowed: usize,
}

/// One script for all of an engine's connections.
#[derive(Debug)]
pub(crate) struct Pace {
    script: Mutex<Script>,
    changed: Condvar,
}

impl Pace {
    pub(crate) fn new() -> Self {
        let script = Script { chunks: 1, together: false, allowed: 1 };
        Self { script: Mutex::new(script), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn script(&self) -> Script {
        *self.lock()
    }

    pub(crate) fn set(&self, script: Script) {
        *self.lock() = script;
        self.changed.notify_all();
    }

    pub(crate) fn allow(&self, chunks: usize) {
        self.lock().allowed = chunks;
        self.changed.notify_all();
    }

    /// Waits until the chunk of this number, from one on, may be sent.
    pub(crate) fn wait_for(&self, chunk: usize) {
        let waiting = self.changed.wait_while(self.lock(), |script| script.allowed < chunk);
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
    }
}
