//! Where an agent is in its life, told to all of its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

/// Only ever goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Connect, and connect again.
    Serving,
    /// Finish what is in flight, take nothing new, connect no more.
    Draining,
    /// Nothing is on the engine: bring the last answers home and end the connection in good order.
    Closing,
    /// The time is up: end the connection with what is still in flight.
    Cutting,
}

/// Moves the phase.
#[derive(Debug)]
pub(super) struct PhaseControl {
    phase: watch::Sender<Phase>,
    dialling_back: Arc<AtomicUsize>,
}

/// Follows the phase.
#[derive(Debug, Clone)]
pub(super) struct PhaseWatch {
    phase: watch::Receiver<Phase>,
    dialling_back: Arc<AtomicUsize>,
}

/// Held by a connection whose gateway dials back, as its requests pass no gate.
#[derive(Debug)]
pub(super) struct DialBack(Arc<AtomicUsize>);

impl PhaseControl {
    pub(super) fn new() -> Self {
        Self { phase: watch::Sender::new(Phase::Serving), dialling_back: Arc::default() }
    }

    pub(super) fn watch(&self) -> PhaseWatch {
        PhaseWatch { phase: self.phase.subscribe(), dialling_back: self.dialling_back.clone() }
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    pub(super) fn anyone_dials_back(&self) -> bool {
        self.dialling_back.load(Ordering::SeqCst) > 0
    }
}

impl PhaseWatch {
    /// Waits for `phase` or a later one. Cancel safe.
    pub(super) async fn reached(&mut self, phase: Phase) -> Phase {
        match self.phase.wait_for(|now| *now >= phase).await {
            Ok(now) => *now,
            // The agent is gone without a word.
            Err(_) => Phase::Cutting,
        }
    }

    pub(super) fn dial_back(&self) -> DialBack {
        self.dialling_back.fetch_add(1, Ordering::SeqCst);
        DialBack(self.dialling_back.clone())
    }
}

impl Drop for DialBack {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
