//! The life of one connection, from its registration to its end.

use std::sync::Arc;
use std::time::Duration;

use gateway_core::{
    CancellationToken, LeaveReason, Membership, Registry, Runner, RunnerKey, RunnerLink, RunnerSpec,
    RunnerStatus,
};
use tokio::time::{Instant, sleep_until, timeout};

use super::commands::Commands;
use super::link::DialledIn;
use super::{Connection, End, Refusal, Settings};
use crate::{FromGateway, FromRunner};

/// How long requests on a connection that was replaced have to end.
const REPLACED_GRACE: Duration = Duration::from_secs(5);

/// How long the peer has to take the goodbye.
const GOODBYE: Duration = Duration::from_secs(3);

/// A runner that may come in: its registration is checked, and it knows that it is in.
pub struct Arrival {
    /// What it is.
    pub spec: RunnerSpec,
    /// How it is.
    pub status: RunnerStatus,
    /// How requests reach it.
    pub way: Arc<dyn RunnerLink>,
    /// Its connection.
    pub connection: Box<dyn Connection>,
    /// Cancelled when the connection is to end, whoever wants that: the transport then fails what is in flight.
    pub close: CancellationToken,
}

/// Joins the registry and speaks with the runner; ends when the connection has ended, or `stop` is cancelled.
pub(super) async fn session(
    settings: &Settings,
    stop: &CancellationToken,
    registry: Arc<dyn Registry>,
    arrival: Arrival,
) {
    Session::begin(settings, registry, arrival).run(settings, stop).await;
}

/// A registered connection.
struct Session {
    connection: Box<dyn Connection>,
    commands: Arc<Commands>,
    membership: Membership,
    /// `None` if the registration was replaced before it could be looked at.
    runner: Option<Arc<Runner>>,
    key: RunnerKey,
    /// Cancelled by [`RunnerLink::close`].
    close: CancellationToken,
}

impl Session {
    fn begin(settings: &Settings, registry: Arc<dyn Registry>, arrival: Arrival) -> Self {
        let Arrival { spec, status, way, connection, close } = arrival;
        let commands = Commands::new(connection.voice(), settings.command_timeout, settings.status_timeout);
        let commands = Arc::new(commands);
        let described = way.describe();
        let link = DialledIn { way, commands: commands.clone(), close: close.clone() };
        let membership = Membership::join(registry.clone(), spec, status, Arc::new(link));
        let key = membership.key().clone();
        let fleet = registry.fleet();
        let runner = fleet.runner(key.id.as_str()).filter(|runner| *runner.key() == key).cloned();
        tracing::info!(
            runner = %key,
            transport = described.transport,
            address = described.address,
            "a runner has registered"
        );
        Self { connection, commands, membership, runner, key, close }
    }

    async fn run(mut self, settings: &Settings, stop: &CancellationToken) {
        let end = self.talk(settings, stop).await;
        let Self { mut connection, commands, mut membership, runner, key, close } = self;
        tracing::info!(runner = %key, reason = ?end, "a runner's connection ends");
        membership.set_reason(match end {
            End::Silent => LeaveReason::HeartbeatTimeout,
            End::Shutdown => LeaveReason::Shutdown,
            End::Disconnected | End::TooSlow | End::Closed | End::Replaced => LeaveReason::Disconnected,
        });
        drop(membership);
        commands.end();
        if end == End::Replaced {
            goodbye_to_replaced(&mut *connection, runner.as_deref(), stop).await;
        }
        // What is still in flight on the connection fails now, not when the peer has answered the goodbye.
        close.cancel();
        let may_say_goodbye = !matches!(end, End::Disconnected | End::Silent | End::TooSlow);
        if may_say_goodbye {
            let _ = timeout(GOODBYE, connection.close(end)).await;
        }
    }

    /// Hears and asks until something ends it.
    async fn talk(&mut self, settings: &Settings, stop: &CancellationToken) -> End {
        let mut silence = Silence::new(settings);
        // Not set anew when something is heard: most of what is heard says only that the runner lives.
        let mut look = std::pin::pin!(sleep_until(silence.next()));
        let runner = self.runner.clone();
        let left = async {
            if let Some(runner) = &runner {
                runner.left().await;
            }
        };
        let mut left = std::pin::pin!(left);
        let close = self.close.clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return End::Shutdown,
                () = close.cancelled() => return End::Closed,
                () = left.as_mut() => return End::Replaced,
                word = self.connection.hear() => match word {
                    Some(word) => {
                        silence.heard = Instant::now();
                        self.hear(word);
                    }
                    None => return End::Disconnected,
                },
                () = look.as_mut() => {
                    let now = Instant::now();
                    if now >= silence.end() {
                        return End::Silent;
                    }
                    if now >= silence.ask() {
                        silence.asked = now;
                        if self.connection.voice().say(FromGateway::Ping).is_err() {
                            return End::TooSlow;
                        }
                    }
                    look.as_mut().reset(silence.next());
                }
            }
        }
    }

    fn hear(&mut self, word: FromRunner) {
        match word {
            FromRunner::Heartbeat(status) | FromRunner::Status(status) => self.tell(status),
            FromRunner::Reply { request_id, reply } => {
                // Before its answer: who waits for it finds the fleet as it is then.
                if let Some(status) = &reply.status {
                    self.tell(status.clone());
                }
                self.commands.complete(&request_id, reply);
            }
            FromRunner::Alive => {}
        }
    }

    fn tell(&mut self, status: RunnerStatus) {
        // Has no effect if it was replaced in this moment; then the session is about to learn it.
        let _ = self.membership.status(status);
    }
}

/// How long nothing was heard of a runner, and what comes of it.
struct Silence<'a> {
    settings: &'a Settings,
    heard: Instant,
    /// When it was asked last whether it is there.
    asked: Instant,
}

impl<'a> Silence<'a> {
    fn new(settings: &'a Settings) -> Self {
        let now = Instant::now();
        Self { settings, heard: now, asked: now }
    }

    /// When it is to be asked.
    fn ask(&self) -> Instant {
        self.heard.max(self.asked) + self.settings.ping_interval
    }

    /// When it counts as gone.
    fn end(&self) -> Instant {
        self.heard + self.settings.heartbeat_timeout
    }

    fn next(&self) -> Instant {
        self.ask().min(self.end())
    }
}

/// Tells the runner's older connection, and lets the requests on it end.
async fn goodbye_to_replaced(
    connection: &mut dyn Connection,
    runner: Option<&Runner>,
    stop: &CancellationToken,
) {
    let error = FromGateway::Error {
        code: Refusal::REPLACED.to_owned(),
        message: "Another connection has registered under this runner ID".to_owned(),
    };
    if connection.voice().say(error).is_err() {
        return;
    }
    let finished = async {
        if let Some(runner) = runner {
            runner.idle().await;
        }
    };
    tokio::select! {
        _ = timeout(REPLACED_GRACE, finished) => {}
        // Not heard any more, but taken, so that what stands behind it gets through.
        () = async { while connection.hear().await.is_some() {} } => {}
        () = stop.cancelled() => {}
    }
}
