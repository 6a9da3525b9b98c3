//! One connection to one gateway, over any byte stream.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use gateway_core::{CommandReply, RunnerStatus};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep, timeout};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::commands::{Commands, Done, Order};
use super::connector::GatewayStream;
use super::endpoint::Endpoint;
use super::failed::{Failed, Refusal};
use super::gate::Gate;
use super::phase::{DialBack, Phase, PhaseWatch};
use super::report::Reports;
use crate::protocol::{self, CommandResponse, GatewayMessage, Register, RunnerMessage, TunnelGrant};
use crate::protocol::{TUNNEL_VERSION, TunnelRequest};
use crate::socket::{Control, Driver, SocketError, TunnelIo, split, websocket_config};
use crate::tunnel;

/// How long a tunnel that never carried anything may take to say goodbye: nothing can be lost on it, and the
/// gateway may never have spoken HTTP/2 at all.
const UNUSED_TUNNEL_GOODBYE: Duration = Duration::from_secs(1);

/// A gateway that has let the runner in.
pub(super) struct Registered {
    control: Control,
    /// Ends when the WebSocket has ended; dropping it cuts the WebSocket.
    driving: JoinSet<Result<(), SocketError>>,
    tunnel: Option<Tunnel>,
}

struct Tunnel {
    /// Cancelled: take no new streams, finish those there are, then end.
    finish: CancellationToken,
    /// Cancelled by the tunnel's end.
    ended: CancellationToken,
    /// What the tunnel's requests pass.
    gate: Arc<Gate>,
}

/// How a registered connection ended.
pub(super) enum End {
    /// The agent ends, and the gateway knows.
    Stopped,
    Lost(Failed),
}

/// Does the WebSocket handshake.
pub(super) async fn open<S: GatewayStream>(
    stream: S,
    endpoint: &Endpoint,
) -> Result<WebSocketStream<S>, Failed> {
    let opened = client_async_with_config(endpoint.uri(), stream, Some(websocket_config())).await;
    let (socket, _) = opened.map_err(|error| Failed::Handshake(Box::new(error)))?;
    Ok(socket)
}

/// Registers, and waits for the ack.
pub(super) async fn register<S: GatewayStream>(
    socket: WebSocketStream<S>,
    shared: &Arc<Shared>,
    reports: &mut Reports,
) -> Result<Registered, Failed> {
    let settings = &shared.settings;
    let (mut control, io, mut driver) = split(socket);
    let streams = shared.spec.slots.map_or(tunnel::MAX_STREAMS, |slots| slots.get());
    let asked = settings.tunnel.then_some(TunnelRequest { version: TUNNEL_VERSION, max_streams: streams });
    let status = on_wire(shared, &reports.status(shared.gate.count(), settings.tunnel));
    let register = Register::new(&shared.spec, settings.token.as_str(), settings.http_port, asked, status);
    say(&control, &RunnerMessage::Register(Box::new(register)))?;
    let granted = timeout(settings.ack_timeout, async {
        let ended = tokio::select! {
            biased;
            answer = answer_to_register(&mut control) => return answer,
            ended = &mut driver => ended,
        };
        // Why the gateway closes the connection is said just before.
        match answer_to_register(&mut control).await {
            Err(refused @ Failed::Refused(_)) => Err(refused),
            _ => Err(ended.map_or_else(Failed::Broken, |()| Failed::Closed)),
        }
    });
    let granted = granted
        .await
        .map_err(|_| Failed::TimedOut("the gateway did not answer the registration in time"))??;
    let granted = granted.filter(|grant| asked.is_some() && grant.version == TUNNEL_VERSION);
    Ok(start(control, io, driver, granted, shared))
}

async fn answer_to_register(control: &mut Control) -> Result<Option<TunnelGrant>, Failed> {
    while let Some(text) = control.recv().await {
        match GatewayMessage::parse(&text) {
            Ok(GatewayMessage::RegisterAck { tunnel, .. }) => return Ok(tunnel),
            Ok(GatewayMessage::Error { code, message }) => {
                return Err(Failed::Refused(Refusal::new(&code, &message)));
            }
            // Nothing else can be meant for a runner that is not yet in.
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a message from the gateway is not understood"),
        }
    }
    Err(Failed::Closed)
}

/// The driver and the tunnel get a task of their own, so that a chunk wakes nothing else.
fn start<S: GatewayStream>(
    control: Control,
    io: TunnelIo,
    driver: Driver<S>,
    granted: Option<TunnelGrant>,
    shared: &Arc<Shared>,
) -> Registered {
    let mut driving = JoinSet::new();
    let tunnel = match granted {
        None => {
            drop(io);
            driving.spawn(driver);
            None
        }
        Some(grant) => {
            let (finish, ended) = (CancellationToken::new(), CancellationToken::new());
            let gate = Arc::new(shared.gate.another());
            let tunnel = Tunnel { finish: finish.clone(), ended: ended.clone(), gate: gate.clone() };
            let serving = async move {
                let _ended = ended.drop_guard();
                tunnel::serve(io, gate, grant.max_streams, finish).await;
            };
            driving.spawn(driver.beside(serving));
            Some(tunnel)
        }
    };
    Registered { control, driving, tunnel }
}

impl Registered {
    pub(super) fn has_tunnel(&self) -> bool {
        self.tunnel.is_some()
    }

    /// Speaks the control protocol until the connection ends, or the agent does.
    pub(super) async fn serve(self, shared: &Arc<Shared>, reports: Reports, mut phase: PhaseWatch) -> End {
        let _dial_back: Option<DialBack> = (!self.has_tunnel()).then(|| phase.dial_back());
        let Self { control, mut driving, tunnel } = self;
        let counted = tunnel.is_some();
        let commands = Commands::default();
        let mut talk = Talk { control, shared, reports, counted, commands, told: None, refusal: None };
        let ended = tokio::select! {
            biased;
            ended = driving.join_next() => Err(end_of(ended)),
            talked = talk.run(&mut phase) => talked,
        };
        match ended {
            Ok(now) => {
                talk.commands = Commands::default();
                if let (Some(tunnel), Phase::Closing) = (tunnel, now) {
                    tokio::select! {
                        () = finish(tunnel, &mut driving, phase) => {}
                        () = talk.stay() => {}
                    }
                }
                if !driving.is_empty() && talk.control.sender().close().is_ok() {
                    driving.join_next().await;
                }
                End::Stopped
            }
            Err(failed) => {
                talk.last_words();
                End::Lost(talk.refusal.map_or(failed, Failed::Refused))
            }
        }
    }
}

fn end_of(ended: Option<Result<Result<(), SocketError>, tokio::task::JoinError>>) -> Failed {
    match ended {
        Some(Ok(Err(error))) => Failed::Broken(error),
        Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        _ => Failed::Closed,
    }
}

/// Ends a tunnel in good order. The engine is done, but the last of its answers may still be on their way to
/// readers that are slow; they have until the time to drain is up.
async fn finish(tunnel: Tunnel, driving: &mut JoinSet<Result<(), SocketError>>, mut phase: PhaseWatch) {
    tunnel.finish.cancel();
    let up = async {
        if tunnel.gate.was_used() {
            phase.reached(Phase::Cutting).await;
        } else {
            sleep(UNUSED_TUNNEL_GOODBYE).await;
        }
    };
    tokio::select! {
        () = tunnel.ended.cancelled() => {}
        _ = driving.join_next() => {}
        () = up => {}
    }
}

fn say(control: &Control, message: &RunnerMessage) -> Result<(), Failed> {
    Ok(control.sender().send(message.to_text())?)
}

fn on_wire(shared: &Shared, status: &RunnerStatus) -> protocol::RunnerStatus {
    protocol::RunnerStatus::from_core(status, &shared.settings.engine_type)
}

/// The control protocol on one registered connection.
struct Talk<'a> {
    control: Control,
    shared: &'a Arc<Shared>,
    reports: Reports,
    /// Whether requests come through a tunnel, where they are counted.
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
        let mut heartbeat = interval(self.shared.settings.heartbeat_interval);
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
                    let status = self.status();
                    self.say(&RunnerMessage::Heartbeat(status))?;
                }
                text = self.control.recv() => match text {
                    Some(text) => self.hear(&text)?,
                    // The driver has more to say about it, and is about to.
                    None => std::future::pending().await,
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

    /// Signs of life while the last answers leave, so that a gateway does not take a slow reader for a dead
    /// runner. Never ends by itself.
    async fn stay(&mut self) {
        let period = self.shared.settings.heartbeat_interval;
        let mut heartbeat = interval_at(Instant::now() + period, period);
        loop {
            tokio::select! {
                _ = heartbeat.tick() => {
                    let status = self.status();
                    // If it cannot be said, the connection ends, and that is noticed elsewhere.
                    let _ = self.say(&RunnerMessage::Heartbeat(status));
                }
                text = self.control.recv() => {
                    if text.is_none() {
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }

    fn hear(&mut self, text: &str) -> Result<(), Failed> {
        let (request_id, order) = match GatewayMessage::parse(text) {
            Ok(GatewayMessage::LoadModel { model_id, request_id }) => (request_id, Order::Load(model_id)),
            Ok(GatewayMessage::UnloadModel { model_id, request_id }) => (request_id, Order::Unload(model_id)),
            Ok(GatewayMessage::RequestStatus { request_id }) => (request_id, Order::Status),
            Ok(GatewayMessage::Ping { .. }) => return self.update(),
            Ok(GatewayMessage::Error { code, message }) => {
                self.complaint(&code, &message);
                return Ok(());
            }
            Ok(GatewayMessage::RegisterAck { .. }) => return Ok(()),
            Err(error) => {
                tracing::debug!(%error, "a message from the gateway is not understood");
                return Ok(());
            }
        };
        match self.commands.start(request_id, order, self.shared, &self.reports) {
            Some(done) => self.answer(done),
            None => Ok(()),
        }
    }

    fn complaint(&mut self, code: &str, message: &str) {
        let refusal = Refusal::new(code, message);
        tracing::warn!(runner = %self.shared.spec.id, error = %refusal, "the gateway reports an error");
        self.refusal = Some(refusal);
    }

    /// After the connection's end: why the gateway closed it may be among what was not yet read.
    fn last_words(&mut self) {
        while let Some(text) = self.control.recv().now_or_never().flatten() {
            if let Ok(GatewayMessage::Error { code, message }) = GatewayMessage::parse(&text) {
                self.complaint(&code, &message);
            }
        }
    }

    fn answer(&mut self, done: Done) -> Result<(), Failed> {
        let status = self.fresh();
        let reply = CommandReply { result: done.result, status: Some(status) };
        let response = CommandResponse::new(done.request_id, reply, &self.shared.settings.engine_type);
        self.say(&RunnerMessage::CommandResponse(response))
    }

    fn update(&mut self) -> Result<(), Failed> {
        let status = self.status();
        self.say(&RunnerMessage::StatusUpdate(status))
    }

    fn status(&mut self) -> protocol::RunnerStatus {
        let status = self.fresh();
        on_wire(self.shared, &status)
    }

    /// The status of this moment, which the gateway is about to hear.
    fn fresh(&mut self) -> RunnerStatus {
        let status = self.reports.status(self.shared.gate.count(), self.counted);
        self.told = Some(status.clone());
        status
    }

    fn say(&self, message: &RunnerMessage) -> Result<(), Failed> {
        say(&self.control, message)
    }
}
