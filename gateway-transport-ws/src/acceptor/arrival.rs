//! From the handshake to a runner that is in.

use std::net::SocketAddr;
use std::sync::Arc;

use gateway_core::{CancellationToken, LinkError, RunnerLink, RunnerSpec};
use gateway_dial_in::gateway::{Arrival, Refusal};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::Shared;
use super::connection::{Driving, LastWords, WsConnection};
use super::registration::{refuse, register};
use crate::dial_back::DialBackLink;
use crate::protocol::{GatewayMessage, Register, TUNNEL_VERSION, TunnelGrant};
use crate::socket::{ControlSender, acceptor_config, split};
use crate::tunnel::{self, TunnelConnection};

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Does what is to be done until the runner is in. Who is not let in is told why.
pub(super) async fn arrive(
    shared: Arc<Shared>,
    upgrade: OnUpgrade,
    peer: Option<SocketAddr>,
    deadline: Instant,
) -> Option<Arrival> {
    let Ok(Ok(upgraded)) = timeout_at(deadline, upgrade).await else { return None };
    let io = TokioIo::new(upgraded);
    let mut socket = Socket::from_raw_socket(io, Role::Server, Some(acceptor_config())).await;
    let tokens = &shared.lobby.settings().tokens;
    let registered = timeout_at(deadline, register(&mut socket, tokens)).await;
    let planned = registered
        .unwrap_or_else(|_| Err(Refusal::timeout()))
        .and_then(|(register, spec)| Ok((plan(&shared, &register, spec, peer)?, register)));
    let (plan, register) = match planned {
        Ok(planned) => planned,
        Err(refusal) => {
            refuse(socket, refusal).await;
            return None;
        }
    };
    match welcome(socket, &register, plan) {
        Ok(arrival) => Some(arrival),
        Err(error) => {
            tracing::debug!(runner = register.runner_id, %error, "a connection broke at once");
            None
        }
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
        let max_streams = asked.max_streams.min(shared.max_streams);
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

/// Acknowledges the registration and takes the socket apart.
fn welcome(socket: Socket, register: &Register, plan: Plan) -> Result<Arrival, LinkError> {
    let Plan { spec, grant, peer, dial_back } = plan;
    let (control, io, driver) = split(socket);
    let ack = GatewayMessage::RegisterAck { runner_id: register.runner_id.clone(), tunnel: grant };
    // First in its queue, and before the first byte of the tunnel.
    control
        .sender()
        .send(ack.to_text())
        .map_err(|error| LinkError::lost("the ack could not be sent").because(error))?;
    let close = CancellationToken::new();
    let (way, driving): (Arc<dyn RunnerLink>, Driving) = match (grant, dial_back) {
        (Some(grant), _) => {
            let address = peer.map(|peer| peer.to_string());
            let (link, connection) = tunnel::connect(io, grant.max_streams, address);
            let carry = carry(connection, close.clone(), control.sender().clone());
            (Arc::new(link), Box::pin(driver.beside(carry)))
        }
        (None, Some(link)) => {
            drop(io);
            (Arc::new(link), Box::pin(driver))
        }
        (None, None) => return Err(LinkError::not_sent("there is no way to the runner")),
    };
    let counts_requests = register.status.active_requests().is_some_and(|active| active > 0);
    let connection = WsConnection {
        control,
        driving: Some(driving),
        driven: false,
        counts_requests,
        close: close.clone(),
        last: LastWords::default(),
    };
    let status = register.status.to_core();
    Ok(Arrival { spec, status, way, connection: Box::new(connection), close })
}

/// Moves HTTP/2's frames, beside the socket's, until the tunnel ends or is to end.
async fn carry(connection: TunnelConnection, close: CancellationToken, control: ControlSender) {
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
