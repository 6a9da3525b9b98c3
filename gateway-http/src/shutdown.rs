use std::time::Duration;

use gateway_core::LeaveReason;

use crate::gateway::Shared;

/// What a [`shutdown`](crate::Gateway::shutdown) came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Requests that were still under way when the time was up, and were cut.
    pub abandoned: usize,
    /// Runner sources that had not ended in time. A bug of theirs.
    pub sources_left: usize,
    /// Request sinks that had not written everything in time: records may be lost.
    pub sinks_left: usize,
}

impl Drained {
    /// How long sources may take to end once there is nothing left to do: ten seconds.
    pub const SOURCES_PATIENCE: Duration = Duration::from_secs(10);

    /// How long request sinks may take to write what they were told: five seconds, several times what a
    /// full queue takes on a slow disk.
    pub const SINKS_PATIENCE: Duration = Duration::from_secs(5);

    /// Whether nothing was cut and nothing is left.
    pub fn is_clean(&self) -> bool {
        self.abandoned == 0 && self.sources_left == 0 && self.sinks_left == 0
    }
}

pub(crate) async fn shutdown(shared: &Shared, patience: Duration) -> Drained {
    shared.closing.cancel();
    shared.dispatcher.close();
    // Out of time or idle: the count below tells which.
    let _ = tokio::time::timeout(patience, shared.dispatcher.idle()).await;
    let abandoned = shared.dispatcher.in_flight();

    // Read before the sources take their runners out: the links have to be closed all the same.
    let registry = shared.dispatcher.registry();
    let fleet = registry.fleet();
    shared.stop.cancel();
    for runner in fleet.runners() {
        registry.leave(runner.key(), LeaveReason::Shutdown);
        runner.link().close();
    }
    shared.sources.close();
    shared.upgraded.tasks.close();
    // They end at once, being told to.
    let _ = tokio::time::timeout(Drained::SOURCES_PATIENCE, shared.upgraded.tasks.wait()).await;
    let _ = tokio::time::timeout(Drained::SOURCES_PATIENCE, shared.sources.wait()).await;
    let sinks_left = match &shared.sinks {
        Some(sinks) => sinks.flush(Drained::SINKS_PATIENCE).await,
        None => 0,
    };
    Drained { abandoned, sources_left: shared.sources.len(), sinks_left }
}
