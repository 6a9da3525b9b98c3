use tokio::sync::broadcast;

use crate::names::RunnerKey;

/// Why a runner left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeaveReason {
    /// Its connection ended, or its source took it out.
    Disconnected,
    /// It was silent for too long.
    HeartbeatTimeout,
    /// It registered anew under the same id.
    Replaced,
    /// The gateway is shutting down.
    Shutdown,
}

impl LeaveReason {
    /// The word for it in logs and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::Replaced => "replaced",
            Self::Shutdown => "shutdown",
        }
    }
}

/// A change of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FleetEvent {
    /// A runner came.
    Joined(RunnerKey),
    /// What a runner says of itself changed in more than its load.
    Changed(RunnerKey),
    /// A runner went.
    Left(RunnerKey, LeaveReason),
    /// The reader was too slow and missed so many events: read the fleet anew.
    Missed(u64),
}

/// Changes of the fleet, in order. Bounded: a reader that falls behind by more than
/// [`FleetEvents::CAPACITY`] events sees [`FleetEvent::Missed`].
#[derive(Debug)]
pub struct FleetEvents(broadcast::Receiver<FleetEvent>);

impl FleetEvents {
    /// How many events are kept for a slow reader.
    pub const CAPACITY: usize = 1024;

    /// Reads from a channel, for registries of your own.
    pub fn new(receiver: broadcast::Receiver<FleetEvent>) -> Self {
        Self(receiver)
    }

    /// The next event, or `None` when the registry is gone. Cancel safe.
    pub async fn next(&mut self) -> Option<FleetEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(FleetEvent::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
