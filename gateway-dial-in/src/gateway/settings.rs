//! The settings that every door has.

use std::time::Duration;

use tokio::sync::Semaphore;

use super::Tokens;

/// Who may come in, how many, and how long things may take. A transport's builder sets these.
#[derive(Debug)]
pub struct Settings {
    /// Who may come in.
    pub tokens: Tokens,
    /// How long a connection may take to register.
    pub register_timeout: Duration,
    /// How long a runner may be silent before it is taken out.
    pub heartbeat_timeout: Duration,
    /// After how long a silence a runner is asked whether it is there; again after each further such time.
    pub ping_interval: Duration,
    /// How long a runner may take to load or unload a model.
    pub command_timeout: Duration,
    /// How long a runner may take to say how it is when asked.
    pub status_timeout: Duration,
    /// The most connections at once.
    pub max_runners: usize,
    /// How many of them may not have registered yet.
    pub max_unregistered: usize,
}

impl Settings {
    /// 10 s, as the control protocol over WebSocket has it.
    pub const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
    /// 90 s, three heartbeats of a runner with defaults.
    pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(90);
    /// 40 s: a runner with the default heartbeat of 30 s is not asked, one that misses it is asked twice before it
    /// is taken out.
    pub const PING_INTERVAL: Duration = Duration::from_secs(40);
    /// 300 s, for large models.
    pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);
    /// 10 s: the runner only has to ask its engine.
    pub const STATUS_TIMEOUT: Duration = Duration::from_secs(10);
    /// 10,000: more than one gateway serves.
    pub const MAX_RUNNERS: usize = 10_000;
    /// 1024: all runners of a large fleet may come back at once, over a few seconds.
    pub const MAX_UNREGISTERED: usize = 1024;

    /// These bounds within what is possible.
    pub(super) fn checked(mut self) -> Self {
        self.ping_interval = self.ping_interval.max(Duration::from_millis(1));
        self.max_runners = self.max_runners.min(Semaphore::MAX_PERMITS);
        self.max_unregistered = self.max_unregistered.min(Semaphore::MAX_PERMITS);
        self
    }
}

impl Default for Settings {
    /// Nobody may come in; the rest is as the constants say.
    fn default() -> Self {
        Self {
            tokens: Tokens::default(),
            register_timeout: Self::REGISTER_TIMEOUT,
            heartbeat_timeout: Self::HEARTBEAT_TIMEOUT,
            ping_interval: Self::PING_INTERVAL,
            command_timeout: Self::COMMAND_TIMEOUT,
            status_timeout: Self::STATUS_TIMEOUT,
            max_runners: Self::MAX_RUNNERS,
            max_unregistered: Self::MAX_UNREGISTERED,
        }
    }
}
