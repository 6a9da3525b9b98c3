//! The gateway's side: the door where runners dial in, and what becomes of them.

mod auth;
mod builder;
mod commands;
mod connection;
mod door;
mod registration;
mod session;

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use gateway_core::{CancellationToken, Door, Registry, RunnerSource};
use tokio::sync::Semaphore;
use tokio_util::sync::DropGuard;
use tokio_util::task::TaskTracker;

pub use builder::{Guarded, Unguarded, WsRunnersBuilder};
pub use door::WsAcceptor;
pub use gateway_core::PeerAddr;

use builder::Settings;

/// Runners that dial in over WebSocket: a source for the gateway's builder, with a door of its own.
///
/// ```
/// use gateway_transport_ws::WsRunners;
/// let runners = WsRunners::builder().auth_token("the runners' secret").build();
/// # let _ = runners;
/// ```
///
/// The host's server must be able to upgrade connections (hyper: `with_upgrades`; axum does so by itself),
/// should set `TCP_NODELAY`, and says where a connection comes from with [`PeerAddr`].
///
/// Every connection is one task for the control protocol and one for the socket. They end with the source.
pub struct WsRunners {
    shared: Arc<Shared>,
    /// Connections end with the source even if it is dropped without having run.
    _ends: DropGuard,
}

struct Shared {
    settings: Settings,
    /// Set when the source begins to run.
    registry: OnceLock<Arc<dyn Registry>>,
    sessions: TaskTracker,
    stop: CancellationToken,
    /// Places for connections, registered or not.
    places: Arc<Semaphore>,
    /// Places for those that have not registered yet.
    newcomers: Arc<Semaphore>,
}

impl WsRunners {
    /// Everything at its default, but who may come in must be said.
    pub fn builder() -> WsRunnersBuilder<Unguarded> {
        WsRunnersBuilder::new()
    }

    fn new(settings: Settings) -> Self {
        let stop = CancellationToken::new();
        let shared = Shared {
            registry: OnceLock::new(),
            sessions: TaskTracker::new(),
            places: Arc::new(Semaphore::new(settings.max_runners)),
            newcomers: Arc::new(Semaphore::new(settings.max_unregistered)),
            stop: stop.clone(),
            settings,
        };
        Self { shared: Arc::new(shared), _ends: stop.drop_guard() }
    }

    /// The door as a service of its own, for hosts that route to it by themselves. It lets runners in as
    /// soon as the source runs.
    pub fn acceptor(&self) -> WsAcceptor {
        WsAcceptor::new(self.shared.clone())
    }
}

#[async_trait]
impl RunnerSource for WsRunners {
    fn door(&self) -> Option<Arc<dyn Door>> {
        Some(Arc::new(self.acceptor()))
    }

    async fn run(self: Box<Self>, registry: Arc<dyn Registry>, stop: CancellationToken) {
        // Runs once: it is consumed.
        let _ = self.shared.registry.set(registry);
        stop.cancelled().await;
        self.shared.stop.cancel();
        self.shared.sessions.close();
        self.shared.sessions.wait().await;
    }
}
