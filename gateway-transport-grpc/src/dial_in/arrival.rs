//! From the call to a runner that is in.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway_core::{BoxError, CancellationToken, RunnerSpec};
use gateway_dial_in::gateway::{Arrival, Refusal};
use http_body::Body;
use tokio::time::{Instant, timeout_at};

use super::connection::{GrpcConnection, farewell, goodbye};
use super::link::DialInLink;
use super::mux::{GatewaySide, Mux, STREAM_WINDOW};
use super::reader::{Reader, decode};
use super::wire::{Messages, ReadError, register_from, status_from};
use super::{MAX_STREAMS, PROTOCOL_VERSION, Shared};
use crate::proto::runner_gateway::{
    GatewayFrame, Register, Registered, RunnerFrame, gateway_frame, runner_frame,
};

/// The runner speaks another version.
const VERSION_MISMATCH: &str = "VERSION_MISMATCH";

/// Does what is to be done until the runner is in. Who is not let in is told why.
pub(super) async fn arrive<B>(
    shared: Arc<Shared>,
    mux: Arc<Mux<GatewaySide>>,
    mut messages: Messages<Pin<Box<B>>>,
    token: String,
    peer: Option<SocketAddr>,
    deadline: Instant,
) -> Option<Arrival>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    // Whoever drops this in the middle ends the call.
    let ends = EndsCall(Some(mux.clone()));
    let registered = timeout_at(deadline, first(&mut messages)).await;
    let checked = registered
        .unwrap_or_else(|_| Err(Refusal::timeout()))
        .and_then(|register| Ok((check(&shared, &register, token)?, register)));
    let (spec, register) = match checked {
        Ok(checked) => checked,
        Err(refusal) => {
            ends.disarm();
            refuse(&mux, refusal);
            return None;
        }
    };
    let asked = register.max_streams.or(register.slots).filter(|streams| *streams > 0);
    let max_streams = asked.unwrap_or(MAX_STREAMS).min(shared.max_streams);
    // Streams are slots: a reservation is also the right to begin one. A runner that does not say how many it has
    // stays unknown; the connection itself takes no more than its streams.
    let spec = match spec.slots {
        Some(slots) => spec.slots(slots.get().min(max_streams)),
        None => spec,
    };
    mux.allow(max_streams);
    let heartbeat = heartbeat(shared.lobby.settings().heartbeat_timeout);
    let ack = gateway_frame::Frame::Registered(Registered {
        runner_id: spec.id.as_str().to_owned(),
        max_streams,
        stream_window: STREAM_WINDOW,
        heartbeat_interval_ms: heartbeat.as_millis().try_into().unwrap_or(u32::MAX),
    });
    // Fails if the call has ended, which is heard next.
    let _ = mux.say(GatewayFrame { frame: Some(ack) });
    ends.disarm();
    let close = CancellationToken::new();
    let way = Arc::new(DialInLink::new(mux.clone(), peer));
    let connection = Box::new(GrpcConnection::new(Reader::new(messages, mux.clone()), mux));
    let status = status_from(register.status.unwrap_or_default());
    Some(Arrival { spec, status, way, connection, close })
}

/// Three in the time that a runner may be silent.
fn heartbeat(timeout: Duration) -> Duration {
    (timeout / 3).max(Duration::from_millis(1))
}

async fn first<B>(messages: &mut Messages<Pin<Box<B>>>) -> Result<Register, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let message = match poll_fn(|cx| messages.poll_next(cx)).await {
        Ok(Some(message)) => message,
        Ok(None) | Err(ReadError::Broken(_)) => return Err(Refusal::Gone),
        Err(wrong) => return Err(Refusal::protocol(wrong.to_string())),
    };
    let frame: RunnerFrame = decode(message).map_err(|wrong| Refusal::protocol(wrong.to_string()))?;
    match frame.frame {
        Some(runner_frame::Frame::Register(register)) => Ok(register),
        _ => Err(Refusal::protocol("the first frame must be `register`")),
    }
}

/// The token first: who may not come in learns nothing else.
fn check(shared: &Shared, register: &Register, metadata: String) -> Result<RunnerSpec, Refusal> {
    let token = if register.token.is_empty() { &metadata } else { &register.token };
    if !shared.lobby.settings().tokens.admit(&register.runner_id, token) {
        return Err(Refusal::auth("Invalid auth token"));
    }
    if register.protocol_version != PROTOCOL_VERSION {
        let theirs = register.protocol_version;
        let message = format!("Protocol version mismatch: expected {PROTOCOL_VERSION}, got {theirs}");
        return Err(Refusal::told(VERSION_MISMATCH, message));
    }
    if register.status.is_none() {
        return Err(Refusal::protocol("`register` has no status"));
    }
    register_from(register).map_err(|invalid| Refusal::protocol(invalid.to_string()))
}

fn refuse(mux: &Mux<GatewaySide>, refusal: Refusal) {
    match refusal {
        Refusal::Gone => goodbye(mux),
        Refusal::Told { code, message } => {
            tracing::warn!(code, message, "a runner was not let in");
            farewell(mux, code, &message);
        }
    }
}

struct EndsCall(Option<Arc<Mux<GatewaySide>>>);

impl EndsCall {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for EndsCall {
    fn drop(&mut self) {
        if let Some(mux) = self.0.take() {
            farewell(&mux, super::connection::UNAVAILABLE, "the gateway is going down");
        }
    }
}
