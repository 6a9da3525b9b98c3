//! The gateway's side: the door where runners dial in, and what becomes of them.

mod arrival;
mod builder;
mod connection;
mod door;
mod registration;

use std::sync::Arc;

use async_trait::async_trait;
use gateway_core::{CancellationToken, Door, Registry, RunnerSource};
use gateway_dial_in::gateway::Lobby;
use tokio_util::sync::DropGuard;

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
    path: String,
    max_streams: u32,
    lobby: Arc<Lobby>,
}

impl WsRunners {
    /// Everything at its default, but who may come in must be said.
    pub fn builder() -> WsRunnersBuilder<Unguarded> {
        WsRunnersBuilder::new()
    }

    fn new(settings: Settings) -> Self {
        let Settings { shared, path, max_streams } = settings;
        let lobby = Arc::new(Lobby::new(shared));
        let stop = lobby.stop().clone();
        Self { shared: Arc::new(Shared { path, max_streams, lobby }), _ends: stop.drop_guard() }
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
        self.shared.lobby.run(registry, stop).await;
    }
}
