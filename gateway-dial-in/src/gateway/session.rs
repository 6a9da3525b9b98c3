//! The life of one connection, from its registration to its end.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::{
    CancellationToken, LeaveReason, Membership, Registry, Runner, RunnerKey, RunnerLink, RunnerSpec,
    RunnerStatus,
};
use tokio::time::timeout;

use super::commands::Commands;
use super::link::DialledIn;
use super::seldom::Seldom;
use super::watch::{Silence, Watch, Watched};
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
    watch: &Arc<Watch>,
    stop: &CancellationToken,
    settings: &Settings,
    registry: Arc<dyn Registry>,
    arrival: Arrival,
) {
    let watched = watch.enter();
    Session::begin(settings, registry, arrival).run(watched, stop).await;
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

    async fn run(mut self, watched: Watched, stop: &CancellationToken) {
        let end = self.talk(&watched, stop).await;
        drop(watched);
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
    async fn talk(&mut self, watched: &Watched, stop: &CancellationToken) -> End {
        let (runner, close) = (self.runner.clone(), self.close.clone());
        let left = async {
            if let Some(runner) = &runner {
                runner.left().await;
            }
        };
        // Not looked at for every word, nor for all that the connection does for requests.
        let mut ended = pin!(Seldom::new(async {
            tokio::select! {
                biased;
                () = stop.cancelled() => End::Shutdown,
                () = close.cancelled() => End::Closed,
                () = left => End::Replaced,
            }
        }));
        let mut silence = pin!(Seldom::new(watched.silence()));
        loop {
            tokio::select! {
                biased;
                end = ended.as_mut() => return end,
                word = hear(&mut *self.connection) => match word {
                    Some(word) => {
                        watched.heard();
                        self.hear(word);
                    }
                    None => return End::Disconnected,
                },
                // After what has come: a process that stood still finds that first.
                silent = silence.as_mut() => match silent {
                    Silence::Gone => return End::Silent,
                    Silence::Ask => {
                        if self.connection.voice().say(FromGateway::Ping).is_err() {
                            return End::TooSlow;
                        }
                        silence.set(Seldom::new(watched.silence()));
                    }
                },
            }
        }
    }

    fn hear(&mut self, word: FromRunner) {
        match word {
            // Neither has an effect if it was replaced in this moment; then the session is about to learn it.
            FromRunner::Heartbeat(status) => drop(self.membership.heartbeat(&status)),
            FromRunner::Status(status) => self.tell(status),
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
        let _ = self.membership.status(status);
    }
}

/// What the runner says next. Cancel safe.
async fn hear(connection: &mut dyn Connection) -> Option<FromRunner> {
    poll_fn(|cx| connection.poll_hear(cx)).await
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
        () = async { while hear(connection).await.is_some() {} } => {}
        () = stop.cancelled() => {}
    }
}
