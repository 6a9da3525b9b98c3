//! What is said on one connection to one gateway, whatever it runs over.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use gateway_core::{CommandReply, RunnerStatus};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep, timeout};

use super::commands::{Commands, Done};
use super::gate::Gate;
use super::phase::{DialBack, Phase, PhaseWatch};
use super::report::Reports;
use super::{Dialled, Failed, Heard, Introduction, Refusal, Registered, Shared, Uplink};
use crate::{FromGateway, FromRunner, Unsaid};

/// How long a connection that never carried a request may take to say goodbye: nothing can be lost on it, and
/// the gateway may never have spoken more than the control protocol at all.
const UNUSED_GOODBYE: Duration = Duration::from_secs(1);

/// A gateway that has let the runner in.
pub(super) struct Line {
    registered: Registered,
    /// What requests of this connection pass.
    gate: Arc<Gate>,
}

/// How a registered connection ended.
pub(super) enum End {
    /// The agent ends, and the gateway knows.
    Stopped,
    Lost(Failed),
}

/// Registers, and waits for the gateway's word.
pub(super) async fn register(
    dialled: Box<dyn Dialled>,
    shared: &Arc<Shared>,
    reports: &mut Reports,
) -> Result<Line, Failed> {
    let settings = &shared.settings;
    let status = reports.status(shared.gate.count(), settings.tunnel);
    let introduction = Introduction {
        spec: &shared.spec,
        token: &settings.token,
        status: &status,
        engine_type: &settings.engine_type,
        tunnel: settings.tunnel,
        http_port: settings.http_port,
    };
    let gate = Arc::new(shared.gate.another());
    let registered = timeout(settings.ack_timeout, dialled.register(introduction, gate.clone()))
        .await
        .map_err(|_| Failed::TimedOut("the gateway did not answer the registration in time"))??;
    Ok(Line { registered, gate })
}

impl Line {
    pub(super) fn carries_requests(&self) -> bool {
        self.registered.carries_requests
    }

    /// Speaks with the gateway until the connection ends, or the agent does.
    pub(super) async fn serve(self, shared: &Arc<Shared>, reports: Reports, mut phase: PhaseWatch) -> End {
        let counted = self.carries_requests();
        let _dial_back: Option<DialBack> = (!counted).then(|| phase.dial_back());
        let Self { registered, gate } = self;
        let own = shared.settings.heartbeat_interval;
        let heartbeat_interval = registered.heartbeat_interval.map_or(own, |wanted| wanted.min(own));
        let mut talk = Talk {
            uplink: registered.uplink,
            heartbeat_interval,
            shared,
            reports,
            counted,
            commands: Commands::default(),
            told: None,
            refusal: None,
        };
        match talk.run(&mut phase).await {
            Ok(now) => {
                talk.commands = Commands::default();
                if counted && now == Phase::Closing {
                    talk.finish(&gate, phase).await;
                }
                talk.uplink.close().await;
                End::Stopped
            }
            Err(failed) => {
                let failed = talk.last_words(failed);
                End::Lost(talk.refusal.map_or(failed, Failed::Refused))
            }
        }
    }
}

/// What is said on one registered connection.
struct Talk<'a> {
    uplink: Box<dyn Uplink>,
    heartbeat_interval: Duration,
    shared: &'a Arc<Shared>,
    reports: Reports,
    /// Whether requests come through the connection, where they are counted.
    counted: bool,
    commands: Commands,
    /// The status that this gateway heard last.
    told: Option<RunnerStatus>,
    /// What the gateway said before it closes the connection.
    refusal: Option<Refusal>,
}

impl Talk<'_> {
    /// Until the phase in which connections end, or a failure.
    async fn run(&mut self, phase: &mut PhaseWatch) -> Result<Phase, Failed> {
        let mut heartbeat = interval(self.heartbeat_interval);
        // After a stop of the whole process one heartbeat is enough.
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = Phase::Draining;
        loop {
            tokio::select! {
                biased;
                now = phase.reached(next) => {
                    // Also when the draining was over before this task had its turn.
                    if next == Phase::Draining {
                        self.update()?;
                    }
                    if now > Phase::Draining {
                        return Ok(now);
                    }
                    next = Phase::Closing;
                }
                _ = heartbeat.tick() => {
                    let status = self.fresh();
                    self.uplink.say(FromRunner::Heartbeat(Arc::new(status)))?;
                }
                heard = self.uplink.hear() => if let Heard::Word(word) = heard? {
                    self.hear(word)?;
                },
                done = self.commands.next() => self.answer(done)?,
                () = self.reports.next() => {
                    let status = self.reports.status(self.shared.gate.count(), self.counted);
                    if self.told.as_ref() != Some(&status) {
                        self.update()?;
                    }
                }
            }
        }
    }

    /// Lets nothing new in and brings the last answers home: the engine is done, but they may still be on their
    /// way to readers that are slow, who have until the time to drain is up. Signs of life go on meanwhile, so
    /// that a gateway does not take a slow reader for a dead runner.
    async fn finish(&mut self, gate: &Gate, mut phase: PhaseWatch) {
        self.uplink.finish();
        let up = async {
            if gate.was_used() {
                phase.reached(Phase::Cutting).await;
            } else {
                sleep(UNUSED_GOODBYE).await;
            }
        };
        tokio::pin!(up);
        let period = self.heartbeat_interval;
        let mut heartbeat = interval_at(Instant::now() + period, period);
        loop {
            tokio::select! {
                biased;
                heard = self.uplink.hear() => match heard {
                    Ok(Heard::Word(_)) => {}
                    Ok(Heard::Finished) | Err(_) => return,
                },
                () = &mut up => return,
                _ = heartbeat.tick() => {
                    let status = self.fresh();
                    // If it cannot be said, the connection ends, and that is heard.
                    let _ = self.uplink.say(FromRunner::Heartbeat(Arc::new(status)));
                }
            }
        }
    }

    fn hear(&mut self, word: FromGateway) -> Result<(), Failed> {
        match word {
            FromGateway::Command { request_id, order } => {
                match self.commands.start(request_id, order, self.shared, &self.reports) {
                    Some(done) => self.answer(done),
                    None => Ok(()),
                }
            }
            FromGateway::Ping => self.update(),
            FromGateway::Error { code, message } => {
                self.complaint(&code, &message);
                Ok(())
            }
            FromGateway::Alive => Ok(()),
        }
    }

    fn complaint(&mut self, code: &str, message: &str) {
        let refusal = Refusal::new(code, message);
        tracing::warn!(runner = %self.shared.spec.id, error = %refusal, "the gateway reports an error");
        self.refusal = Some(refusal);
    }

    /// After the connection's end: why the gateway closed it may be among what was not yet heard, and how it
    /// ended is known better there than by somebody who could not speak.
    fn last_words(&mut self, mut failed: Failed) -> Failed {
        loop {
            match self.uplink.hear().now_or_never() {
                Some(Ok(Heard::Word(FromGateway::Error { code, message }))) => {
                    self.complaint(&code, &message)
                }
                Some(Ok(_)) => {}
                Some(Err(ended)) => {
                    if matches!(failed, Failed::Deaf(Unsaid::Ended)) {
                        failed = ended;
                    }
                    return failed;
                }
                None => return failed,
            }
        }
    }

    fn answer(&mut self, done: Done) -> Result<(), Failed> {
        let status = self.fresh();
        let reply = CommandReply { result: done.result, status: Some(status) };
        Ok(self.uplink.say(FromRunner::Reply { request_id: done.request_id, reply })?)
    }

    fn update(&mut self) -> Result<(), Failed> {
        let status = self.fresh();
        Ok(self.uplink.say(FromRunner::Status(status))?)
    }

    /// The status of this moment, which the gateway is about to hear.
    fn fresh(&mut self) -> RunnerStatus {
        let status = self.reports.status(self.shared.gate.count(), self.counted);
        self.told = Some(status.clone());
        status
    }
}
