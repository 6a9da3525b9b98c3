//! The life of one connection, from the handshake to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use gateway_core::{
    CancellationToken, LeaveReason, LinkError, Membership, Registry, ReportedLoad, Runner, RunnerKey,
    RunnerSpec,
};
use h2::client::Connection;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::Shared;
use super::commands::Commands;
use super::connection::{RunnerConnection, Way};
use super::registration::{Refusal, refuse, register};
use crate::dial_back::DialBackLink;
use crate::protocol::{GatewayMessage, Register, RunnerMessage, RunnerStatus, TUNNEL_VERSION, TunnelGrant};
use crate::socket::{Control, ControlSender, SocketError, TunnelIo, split, websocket_config};
use crate::tunnel;

/// How long requests on a connection that was replaced have to end.
const REPLACED_GRACE: Duration = Duration::from_secs(5);

/// How long the peer has to take the close frame.
const GOODBYE: Duration = Duration::from_secs(3);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A connection that was let through the door.
pub(super) struct Arrival {
    pub(super) upgrade: OnUpgrade,
    pub(super) peer: Option<SocketAddr>,
    pub(super) place: OwnedSemaphorePermit,
    pub(super) newcomer: OwnedSemaphorePermit,
}

/// Ends when the connection has ended, or the source has.
pub(super) async fn session(shared: Arc<Shared>, arrival: Arrival) {
    let Arrival { upgrade, peer, place: _place, newcomer } = arrival;
    let Some(registry) = shared.registry.get().cloned() else { return };
    let stop = shared.stop.clone();
    let newcomer = async {
        let deadline = Instant::now() + shared.settings.register_timeout;
        let Ok(Ok(upgraded)) = timeout_at(deadline, upgrade).await else { return None };
        let io = TokioIo::new(upgraded);
        let mut socket = Socket::from_raw_socket(io, Role::Server, Some(websocket_config())).await;
        let registered = timeout_at(deadline, register(&mut socket, &shared.settings.tokens)).await;
        let refusal = match registered.unwrap_or_else(|_| Err(Refusal::timeout())) {
            Ok((register, spec)) => match plan(&shared, &register, spec, peer) {
                Ok(plan) => {
                    drop(newcomer);
                    return Some((socket, register, plan));
                }
                Err(refusal) => refusal,
            },
            Err(refusal) => refusal,
        };
        refuse(socket, refusal).await;
        None
    };
    let registered = tokio::select! {
        registered = newcomer => registered,
        () = stop.cancelled() => None,
    };
    let Some((socket, register, plan)) = registered else { return };
    match Session::begin(&shared, registry, socket, &register, plan).await {
        Ok(session) => session.run(&shared).await,
        Err(error) => tracing::debug!(runner = register.runner_id, %error, "a connection broke at once"),
    }
}

/// What is granted to a runner.
struct Plan {
    spec: RunnerSpec,
    grant: Option<TunnelGrant>,
    /// Where it is, for people; with a dial-back it is in the link.
    peer: Option<SocketAddr>,
    dial_back: Option<DialBackLink>,
}

/// The tunnel if it asks for one that we speak, else dialling back.
fn plan(
    shared: &Shared,
    register: &Register,
    mut spec: RunnerSpec,
    peer: Option<SocketAddr>,
) -> Result<Plan, Refusal> {
    let asked = register.tunnel.filter(|asked| asked.version == TUNNEL_VERSION && asked.max_streams > 0);
    if let Some(asked) = asked {
        let max_streams = asked.max_streams.min(shared.settings.max_streams);
        // Streams are slots: a reservation is also the right to open one. A runner that does not say how
        // many it has stays unknown; the tunnel itself takes no more than its streams.
        if let Some(slots) = spec.slots {
            spec = spec.slots(slots.get().min(max_streams));
        }
        let grant = Some(TunnelGrant { version: TUNNEL_VERSION, max_streams });
        return Ok(Plan { spec, grant, peer, dial_back: None });
    }
    let Some(peer) = peer else {
        tracing::error!(
            runner = %spec.id,
            "a runner wants to be dialled back, but its address is not known; \
             insert gateway_transport_ws::PeerAddr into the extensions of each request"
        );
        return Err(Refusal::protocol("The gateway does not know your address; ask for the tunnel instead"));
    };
    let link = DialBackLink::new(peer.ip(), register.http_port)
        .map_err(|error| Refusal::protocol(format!("You cannot be dialled back: {error}")))?;
    Ok(Plan { spec, grant: None, peer: Some(peer), dial_back: Some(link) })
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The socket or the tunnel ended.
    Disconnected,
    /// The runner was silent for too long.
    Silent,
    /// The runner does not take its messages.
    TooSlow,
    /// The registration has left the registry: replaced by a newer one, or removed.
    Replaced,
    /// The link was told to close.
    Closed,
    /// The source ends.
    Shutdown,
}

/// A registered connection.
struct Session {
    control: Control,
    /// The task that owns the socket: cut when this is dropped.
    driving: JoinSet<Result<(), SocketError>>,
    commands: Arc<Commands>,
    membership: Membership,
    /// `None` if the registration was replaced before it could be looked at.
    runner: Option<Arc<Runner>>,
    key: RunnerKey,
    /// The runner counts its requests in its capabilities: it has said so with a figure above zero, so that
    /// from then on zero means zero.
    counts_requests: bool,
    /// Cancelled by [`RunnerConnection::close`](gateway_core::RunnerLink::close).
    close: CancellationToken,
}

impl Session {
    /// Acknowledges the registration, starts the socket's task and joins the registry.
    async fn begin(
        shared: &Shared,
        registry: Arc<dyn Registry>,
        socket: Socket,
        register: &Register,
        plan: Plan,
    ) -> Result<Self, LinkError> {
        let Plan { spec, grant, peer, dial_back } = plan;
        let (control, io, driver) = split(socket);
        let ack = GatewayMessage::RegisterAck { runner_id: register.runner_id.clone(), tunnel: grant };
        // First in its queue, and before the first byte of the tunnel.
        control
            .sender()
            .send(ack.to_text())
            .map_err(|error| LinkError::lost("the ack could not be sent").because(error))?;
        let settings = &shared.settings;
        let commands =
            Commands::new(control.sender().clone(), settings.command_timeout, settings.status_timeout);
        let commands = Arc::new(commands);
        let close = CancellationToken::new();
        let mut driving = JoinSet::new();
        let way = match (grant, dial_back) {
            (Some(grant), _) => {
                let address = peer.map(|peer| peer.to_string());
                let (link, connection) = tunnel::connect(io, grant.max_streams, address).await?;
                driving.spawn(driver.beside(carry(connection, close.clone(), control.sender().clone())));
                Way::Tunnel(link)
            }
            (None, Some(link)) => {
                drop(io);
                driving.spawn(driver);
                Way::DialBack(link)
            }
            (None, None) => return Err(LinkError::not_sent("there is no way to the runner")),
        };
        let link = RunnerConnection { way, commands: commands.clone(), close: close.clone() };
        let status = register.status.to_core();
        let membership = Membership::join(registry.clone(), spec, status, Arc::new(link));
        let key = membership.key().clone();
        let fleet = registry.fleet();
        let runner = fleet.runner(key.id.as_str()).filter(|runner| *runner.key() == key).cloned();
        tracing::info!(
            runner = %key,
            tunnel = grant.is_some(),
            peer = peer.map(tracing::field::display),
            "a runner has registered"
        );
        let counts_requests = register.status.active_requests().is_some_and(|active| active > 0);
        Ok(Self { control, driving, commands, membership, runner, key, counts_requests, close })
    }

    async fn run(mut self, shared: &Shared) {
        let end = self.talk(shared).await;
        let Self { mut control, mut driving, commands, mut membership, runner, key, close, .. } = self;
        tracing::info!(runner = %key, reason = ?end, "a runner's connection ends");
        membership.set_reason(match end {
            End::Silent => LeaveReason::HeartbeatTimeout,
            End::Shutdown => LeaveReason::Shutdown,
            End::Disconnected | End::TooSlow | End::Closed | End::Replaced => LeaveReason::Disconnected,
        });
        drop(membership);
        commands.end();
        if end == End::Replaced {
            goodbye_to_replaced(&mut control, runner.as_deref(), &shared.stop).await;
        }
        // What is still in flight on a tunnel fails now, not when the peer has answered the goodbye.
        close.cancel();
        let may_say_goodbye = !matches!(end, End::Disconnected | End::Silent | End::TooSlow);
        if may_say_goodbye && control.sender().close().is_ok() {
            let _ = timeout(GOODBYE, driving.join_next()).await;
        }
        driving.shutdown().await;
    }

    /// Speaks the control protocol until something ends it.
    async fn talk(&mut self, shared: &Shared) -> End {
        let settings = &shared.settings;
        let mut heard = Instant::now();
        let mut ping = interval_at(heard + settings.ping_interval, settings.ping_interval);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                () = shared.stop.cancelled() => return End::Shutdown,
                () = close.cancelled() => return End::Closed,
                () = left.as_mut() => return End::Replaced,
                text = self.control.recv() => match text {
                    Some(text) => {
                        heard = Instant::now();
                        self.hear(&text);
                    }
                    None => return End::Disconnected,
                },
                _ = self.driving.join_next() => return End::Disconnected,
                _ = ping.tick() => {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    let timestamp = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
                    let ping = GatewayMessage::Ping { timestamp };
                    if self.control.sender().send(ping.to_text()).is_err() {
                        return End::TooSlow;
                    }
                }
                () = sleep_until(heard + settings.heartbeat_timeout) => return End::Silent,
            }
        }
    }

    fn hear(&mut self, text: &str) {
        match RunnerMessage::parse(text) {
            Ok(RunnerMessage::Heartbeat(status) | RunnerMessage::StatusUpdate(status)) => self.tell(&status),
            Ok(RunnerMessage::CommandResponse(response)) => {
                // Before its answer: who waits for it finds the fleet as it is then.
                if let Some(status) = &response.status {
                    self.tell(status);
                }
                self.commands.complete(&response.request_id, response.reply());
            }
            Ok(RunnerMessage::Register(_)) => {
                tracing::debug!(runner = %self.key, "a runner registers twice on one connection");
            }
            Err(error) => {
                tracing::debug!(runner = %self.key, %error, "a message from a runner is not understood");
            }
        }
    }

    fn tell(&mut self, status: &RunnerStatus) {
        let mut core = status.to_core();
        let active = status.active_requests();
        self.counts_requests |= active.is_some_and(|active| active > 0);
        if core.load.is_none() && self.counts_requests && active.is_some() {
            core.load = Some(ReportedLoad { active: 0, queued: 0 });
        }
        // Has no effect if it was replaced in this moment; then the session is about to learn it.
        let _ = self.membership.status(core);
    }
}

/// Tells the runner's older connection, and lets the requests on it end.
async fn goodbye_to_replaced(control: &mut Control, runner: Option<&Runner>, stop: &CancellationToken) {
    let error = GatewayMessage::Error {
        code: "REPLACED".to_owned(),
        message: "Another connection has registered under this runner ID".to_owned(),
    };
    if control.sender().send(error.to_text()).is_err() {
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
        () = async { while control.recv().await.is_some() {} } => {}
        () = stop.cancelled() => {}
    }
}

/// Moves HTTP/2's frames, in the socket's own task, until the tunnel ends or is to end.
async fn carry(connection: Connection<TunnelIo, Bytes>, close: CancellationToken, control: ControlSender) {
    tokio::select! {
        biased;
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a tunnel broke");
        },
        () = close.cancelled() => {}
    }
    // A runner without its tunnel is of no use. Fails when the connection has ended already.
    let _ = control.close();
}
