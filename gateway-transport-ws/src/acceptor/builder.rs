//! The settings of the door.

use std::marker::PhantomData;
use std::time::Duration;

use gateway_dial_in::gateway;

use super::WsRunners;
use crate::protocol::DEFAULT_PATH;
use crate::tunnel::MAX_STREAMS;

pub(super) struct Settings {
    /// What every door has.
    pub(super) shared: gateway::Settings,
    pub(super) path: String,
    pub(super) max_streams: u32,
}

/// It has not been said who may come in: such a builder cannot build.
#[derive(Debug)]
pub struct Unguarded;

/// It has been said who may come in.
#[derive(Debug)]
pub struct Guarded;

/// Settings for [`WsRunners`]. Before it can build it must be told who may come in, by
/// [`auth_token`](Self::auth_token), [`runner_token`](Self::runner_token) or
/// [`allow_anonymous`](Self::allow_anonymous).
///
/// ```
/// use std::time::Duration;
/// use gateway_transport_ws::WsRunners;
/// let runners = WsRunners::builder()
///     .auth_token("for all of them")
///     .runner_token("gpu-1", "for this one only")
///     .heartbeat_timeout(Duration::from_secs(60))
///     .build();
/// # let _ = runners;
/// ```
///
/// ```compile_fail
/// // Nobody said who may come in.
/// let runners = gateway_transport_ws::WsRunners::builder().build();
/// ```
#[must_use]
pub struct WsRunnersBuilder<G> {
    settings: Settings,
    guard: PhantomData<G>,
}

impl WsRunnersBuilder<Unguarded> {
    pub(super) fn new() -> Self {
        let settings = Settings {
            shared: gateway::Settings::default(),
            path: DEFAULT_PATH.to_owned(),
            max_streams: MAX_STREAMS,
        };
        Self { settings, guard: PhantomData }
    }
}

impl<G> WsRunnersBuilder<G> {
    /// A token that lets in every runner that has none of its own. An empty one lets nobody in.
    pub fn auth_token(mut self, token: impl AsRef<str>) -> WsRunnersBuilder<Guarded> {
        self.settings.shared.tokens.share(token.as_ref());
        self.guarded()
    }

    /// A token for the runner with this id; the shared one does not let it in any more. An empty one lets
    /// it in never.
    pub fn runner_token(
        mut self,
        id: impl Into<String>,
        token: impl AsRef<str>,
    ) -> WsRunnersBuilder<Guarded> {
        self.settings.shared.tokens.own(id.into(), token.as_ref());
        self.guarded()
    }

    /// Lets in every runner that has no token of its own, whatever token it sends. For networks that only
    /// runners can reach.
    pub fn allow_anonymous(mut self) -> WsRunnersBuilder<Guarded> {
        self.settings.shared.tokens.allow_anonymous();
        self.guarded()
    }

    fn guarded(self) -> WsRunnersBuilder<Guarded> {
        WsRunnersBuilder { settings: self.settings, guard: PhantomData }
    }

    /// Where runners dial in. Default: `/ws/runners`.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.settings.path = path.into();
        self
    }

    /// How long a connection may take to register. Default: 10 s, as the control protocol has it.
    pub fn register_timeout(mut self, limit: Duration) -> Self {
        self.settings.shared.register_timeout = limit;
        self
    }

    /// How long a runner may be silent before it is taken out. Default: 90 s, three of its heartbeats.
    pub fn heartbeat_timeout(mut self, limit: Duration) -> Self {
        self.settings.shared.heartbeat_timeout = limit;
        self
    }

    /// After how long a silence a runner is asked whether it is there, and again after each further such time; at
    /// least 1 ms. Default: 40 s, so that one with a heartbeat each 30 s is not asked.
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.settings.shared.ping_interval = interval;
        self
    }

    /// How long a runner may take to load or unload a model. Default: 300 s.
    pub fn command_timeout(mut self, limit: Duration) -> Self {
        self.settings.shared.command_timeout = limit;
        self
    }

    /// How long a runner may take to say how it is when asked. Default: 10 s.
    pub fn status_timeout(mut self, limit: Duration) -> Self {
        self.settings.shared.status_timeout = limit;
        self
    }

    /// The most connections at once; more are answered with 503. Default: 10,000.
    pub fn max_runners(mut self, max: usize) -> Self {
        self.settings.shared.max_runners = max;
        self
    }

    /// How many of them may not have registered yet; more are answered with 503. Default: 1024.
    pub fn max_unregistered(mut self, max: usize) -> Self {
        self.settings.shared.max_unregistered = max;
        self
    }

    /// The most streams on one tunnel, 1 to [`MAX_STREAMS`](crate::tunnel::MAX_STREAMS), which is the
    /// default. A runner that asks for more gets so many.
    pub fn max_streams(mut self, max: u32) -> Self {
        self.settings.max_streams = max.clamp(1, MAX_STREAMS);
        self
    }
}

impl WsRunnersBuilder<Guarded> {
    /// The source. Runners can come in once it runs.
    pub fn build(self) -> WsRunners {
        WsRunners::new(self.settings)
    }
}
