//! What stands behind a door: the registry once the source runs, room for so many, and the tasks of those who
//! are in.

use std::future::Future;
use std::sync::{Arc, OnceLock};

use gateway_core::{CancellationToken, Registry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::session::{self, Arrival};
use super::watch::Watch;
use super::{Refusal, Settings};

/// Behind every door where runners dial in. A transport's source holds one for its door and
/// [runs](Self::run) it; whoever comes through the door gets a [`Visit`].
pub struct Lobby {
    settings: Settings,
    /// Set when the source begins to run.
    registry: OnceLock<Arc<dyn Registry>>,
    watch: Arc<Watch>,
    sessions: TaskTracker,
    stop: CancellationToken,
    /// Places for connections, registered or not.
    places: Arc<Semaphore>,
    /// Places for those that have not registered yet.
    newcomers: Arc<Semaphore>,
}

/// A place in a [`Lobby`], for a connection that has not yet registered.
pub struct Visit {
    lobby: Arc<Lobby>,
    place: OwnedSemaphorePermit,
    newcomer: OwnedSemaphorePermit,
}

/// Why nobody can come in now. Both pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// The source does not run yet, or has ended.
    #[error("no runners are let in now")]
    NotRunning,
    /// As many connections as there may be.
    #[error("there are too many runners")]
    Full,
}

impl Lobby {
    /// With nobody in it. Runners can come in once it [runs](Self::run).
    pub fn new(settings: Settings) -> Self {
        let settings = settings.checked();
        Self {
            registry: OnceLock::new(),
            watch: Arc::new(Watch::new(&settings)),
            sessions: TaskTracker::new(),
            places: Arc::new(Semaphore::new(settings.max_runners)),
            newcomers: Arc::new(Semaphore::new(settings.max_unregistered)),
            stop: CancellationToken::new(),
            settings,
        }
    }

    /// What was set.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Cancelled when every connection is to end. Cancel it when the source is dropped.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Lets runners in until `stop` is cancelled; returns when every connection has ended.
    pub async fn run(&self, registry: Arc<dyn Registry>, stop: CancellationToken) {
        // Once: sources are consumed by running.
        let _ = self.registry.set(registry);
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.watch.run() => {}
        }
        self.stop.cancel();
        self.sessions.close();
        self.sessions.wait().await;
    }

    /// Whether somebody can come in at all.
    ///
    /// # Errors
    ///
    /// The source does not run.
    pub fn is_open(&self) -> Result<(), NoRoom> {
        if self.stop.is_cancelled() || self.registry.get().is_none() {
            return Err(NoRoom::NotRunning);
        }
        Ok(())
    }

    /// A place for a connection.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn enter(self: &Arc<Self>) -> Result<Visit, NoRoom> {
        self.is_open()?;
        let place = self.places.clone().try_acquire_owned().map_err(|_| NoRoom::Full)?;
        let newcomer = self.newcomers.clone().try_acquire_owned().map_err(|_| NoRoom::Full)?;
        Ok(Visit { lobby: self.clone(), place, newcomer })
    }
}

impl Visit {
    /// What was set.
    pub fn settings(&self) -> &Settings {
        &self.lobby.settings
    }

    /// Starts the connection's task: `register` does what the transport has to do until the runner is in, and
    /// bounds how long that takes; then follows the [`Arrival`]'s life. `None` from `register`: nobody came in.
    /// The task ends with the connection, or with the source.
    pub fn receive<F>(self, register: F)
    where
        F: Future<Output = Option<Arrival>> + Send + 'static,
    {
        let Self { lobby, place, newcomer } = self;
        let tracker = lobby.sessions.clone();
        // Of its own: what it needs is much, and not needed for as long as the runner is in.
        let register = Box::pin(register);
        tracker.spawn(async move {
            let _place = place;
            let Some(registry) = lobby.registry.get().cloned() else { return };
            let arrival = tokio::select! {
                arrival = register => arrival,
                () = lobby.stop.cancelled() => None,
            };
            drop(newcomer);
            if let Some(arrival) = arrival {
                session::session(&lobby.watch, &lobby.stop, lobby.settings(), registry, arrival).await;
            }
        });
    }
}

impl From<NoRoom> for Refusal {
    fn from(why: NoRoom) -> Self {
        Self::told("UNAVAILABLE", why.to_string())
    }
}
