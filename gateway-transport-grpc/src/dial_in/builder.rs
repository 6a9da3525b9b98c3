//! The settings of the service.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use gateway_dial_in::gateway::{Lobby, Settings};

use super::{GrpcDialIn, MAX_STREAMS, Shared};

/// It has not been said who may come in: such a builder cannot build.
#[derive(Debug)]
pub struct Unguarded;

/// It has been said who may come in.
#[derive(Debug)]
pub struct Guarded;

/// Settings for [`GrpcDialIn`]. Before it can build it must be told who may come in, by
/// [`auth_token`](Self::auth_token), [`runner_token`](Self::runner_token) or
/// [`allow_anonymous`](Self::allow_anonymous).
///
/// ```
/// use std::time::Duration;
/// use gateway_transport_grpc::dial_in::GrpcDialIn;
/// let runners = GrpcDialIn::builder()
///     .auth_token("for all of them")
///     .runner_token("gpu-1", "for this one only")
///     .heartbeat_timeout(Duration::from_secs(60))
///     .build();
/// # let _ = runners;
/// ```
///
/// ```compile_fail
/// // Nobody said who may come in.
/// let runners = gateway_transport_grpc::dial_in::GrpcDialIn::builder().build();
/// ```
#[must_use]
pub struct GrpcDialInBuilder<G> {
    settings: Settings,
    max_streams: u32,
    guard: PhantomData<G>,
}

impl GrpcDialInBuilder<Unguarded> {
    pub(super) fn new() -> Self {
        Self { settings: Settings::default(), max_streams: MAX_STREAMS, guard: PhantomData }
    }
}

impl<G> GrpcDialInBuilder<G> {
    /// A token that lets in every runner that has none of its own. An empty one lets nobody in.
    pub fn auth_token(mut self, token: impl AsRef<str>) -> GrpcDialInBuilder<Guarded> {
        self.settings.tokens.share(token.as_ref());
        self.guarded()
    }

    /// A token for the runner with this id; the shared one does not let it in any more. An empty one lets
    /// it in never.
    pub fn runner_token(
        mut self,
        id: impl Into<String>,
        token: impl AsRef<str>,
    ) -> GrpcDialInBuilder<Guarded> {
        self.settings.tokens.own(id.into(), token.as_ref());
        self.guarded()
    }

    /// Lets in every runner that has no token of its own, whatever token it sends. For networks that only
    /// runners can reach.
    pub fn allow_anonymous(mut self) -> GrpcDialInBuilder<Guarded> {
        self.settings.tokens.allow_anonymous();
        self.guarded()
    }

    fn guarded(self) -> GrpcDialInBuilder<Guarded> {
        let Self { settings, max_streams, .. } = self;
        GrpcDialInBuilder { settings, max_streams, guard: PhantomData }
    }

    /// How long a connection may take to register. Default: 10 s ([`Settings::REGISTER_TIMEOUT`]).
    pub fn register_timeout(mut self, limit: Duration) -> Self {
        self.settings.register_timeout = limit;
        self
    }

    /// How long a runner may be silent before it is taken out; it is told to send a heartbeat three times as
    /// often. Default: 90 s ([`Settings::HEARTBEAT_TIMEOUT`]).
    pub fn heartbeat_timeout(mut self, limit: Duration) -> Self {
        self.settings.heartbeat_timeout = limit;
        self
    }

    /// After how long a silence a runner is asked whether it is there, and again after each further such time; at
    /// least 1 ms. Default: 40 s ([`Settings::PING_INTERVAL`]).
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.settings.ping_interval = interval;
        self
    }

    /// How long a runner may take to load or unload a model. Default: 300 s ([`Settings::COMMAND_TIMEOUT`]).
    pub fn command_timeout(mut self, limit: Duration) -> Self {
        self.settings.command_timeout = limit;
        self
    }

    /// How long a runner may take to say how it is when asked. Default: 10 s ([`Settings::STATUS_TIMEOUT`]).
    pub fn status_timeout(mut self, limit: Duration) -> Self {
        self.settings.status_timeout = limit;
        self
    }

    /// The most connections at once; more are answered with UNAVAILABLE. Default: 10,000
    /// ([`Settings::MAX_RUNNERS`]).
    pub fn max_runners(mut self, max: usize) -> Self {
        self.settings.max_runners = max;
        self
    }

    /// How many of them may not have registered yet; more are answered with UNAVAILABLE. Default: 1024
    /// ([`Settings::MAX_UNREGISTERED`]).
    pub fn max_unregistered(mut self, max: usize) -> Self {
        self.settings.max_unregistered = max;
        self
    }

    /// The most requests on one connection at once, 1 to [`MAX_STREAMS`], which is the default. A runner that
    /// asks for more gets so many.
    pub fn max_streams(mut self, max: u32) -> Self {
        self.max_streams = max.clamp(1, MAX_STREAMS);
        self
    }
}

impl GrpcDialInBuilder<Guarded> {
    /// The source. Runners can come in once it runs.
    pub fn build(self) -> GrpcDialIn {
        let lobby = Arc::new(Lobby::new(self.settings));
        GrpcDialIn::new(Shared { max_streams: self.max_streams, lobby })
    }
}
