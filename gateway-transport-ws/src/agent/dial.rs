//! From an address to a gateway that has let the runner in.

use std::sync::Arc;

use async_trait::async_trait;
use gateway_core::RunnerLink;
use gateway_dial_in::agent::{
    Connector, Dialled, Failed, Gateway, GatewayStream, Introduction, Refusal, Registered,
};
use tokio_tungstenite::{WebSocketStream, client_async_with_config, tungstenite};

use super::endpoint::Endpoint;
use super::uplink::WsUplink;
use crate::protocol::{GatewayMessage, Register, RunnerMessage, RunnerStatus, TunnelGrant};
use crate::protocol::{TUNNEL_VERSION, TunnelRequest};
use crate::socket::{Control, split, websocket_config};
use crate::tunnel;

#[async_trait]
impl Gateway for Endpoint {
    async fn dial(&self, connector: &dyn Connector) -> Result<Box<dyn Dialled>, Failed> {
        let stream = connector.connect(self.host(), self.port()).await.map_err(Failed::Connect)?;
        let opened = client_async_with_config(self.uri(), stream, Some(websocket_config())).await;
        let (socket, _) = opened.map_err(handshake_failed)?;
        Ok(Box::new(Opened { socket }))
    }
}

fn handshake_failed(error: tungstenite::Error) -> Failed {
    let refused = match &error {
        tungstenite::Error::Http(response) => {
            // Too early, too many, too slow: these pass.
            let status = response.status();
            status.is_client_error() && !matches!(status.as_u16(), 408 | 425 | 429)
        }
        _ => false,
    };
    let (problem, advice) = ("no WebSocket is spoken there", "is the path right?");
    Failed::Handshake { problem, advice, refused, source: Box::new(error) }
}

/// A WebSocket on which nothing was said yet.
struct Opened {
    socket: WebSocketStream<Box<dyn GatewayStream>>,
}

#[async_trait]
impl Dialled for Opened {
    async fn register(
        self: Box<Self>,
        introduction: Introduction<'_>,
        gate: Arc<dyn RunnerLink>,
    ) -> Result<Registered, Failed> {
        let (mut control, io, mut driver) = split(self.socket);
        let max_streams = introduction.streams(tunnel::MAX_STREAMS);
        let asked = introduction.tunnel.then_some(TunnelRequest { version: TUNNEL_VERSION, max_streams });
        let Introduction { spec, token, status, engine_type, http_port, .. } = introduction;
        let status = RunnerStatus::from_core(status, engine_type);
        let register = Register::new(spec, token, http_port, asked, status);
        let register = RunnerMessage::Register(Box::new(register));
        control.sender().send(register.to_text()).map_err(|error| Failed::Deaf(error.into()))?;
        let granted = tokio::select! {
            biased;
            answer = answer_to_register(&mut control) => answer?,
            ended = &mut driver => {
                // Why the gateway closes the connection is said just before.
                return Err(match answer_to_register(&mut control).await {
                    Err(refused @ Failed::Refused(_)) => refused,
                    _ => ended.map_or_else(|error| Failed::Broken(Box::new(error)), |()| Failed::Closed),
                });
            }
        };
        let granted = granted.filter(|grant| asked.is_some() && grant.version == TUNNEL_VERSION);
        let uplink = WsUplink::start(control, io, driver, granted, gate, engine_type.to_owned());
        Ok(Registered {
            carries_requests: granted.is_some(),
            uplink: Box::new(uplink),
            heartbeat_interval: None,
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_people_must_mend_is_a_refusal() {
        let answered = |status: u16| {
            let mut response = http::Response::new(None);
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            handshake_failed(tungstenite::Error::Http(Box::new(response))).is_refusal()
        };
        assert!(answered(401) && answered(404) && !answered(503) && !answered(429));
    }
}
