//! A registered connection, over any byte stream.

use std::sync::Arc;

use async_trait::async_trait;
use gateway_core::RunnerLink;
use gateway_dial_in::agent::{Failed, GatewayStream, Heard, Uplink};
use gateway_dial_in::{FromGateway, FromRunner, Order, Unsaid};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::protocol::{CommandResponse, GatewayMessage, RunnerMessage, RunnerStatus, TunnelGrant};
use crate::socket::{Control, Driver, SocketError, TunnelIo};
use crate::tunnel;

/// A WebSocket to a gateway that has let the runner in.
pub(super) struct WsUplink {
    control: Control,
    /// Ends when the WebSocket has ended; dropping it cuts the WebSocket.
    driving: JoinSet<Result<(), SocketError>>,
    tunnel: Option<Tunnel>,
    engine_type: String,
}

struct Tunnel {
    /// Cancelled: take no new streams, finish those there are, then end.
    finish: CancellationToken,
    /// Cancelled by the tunnel's end.
    ended: CancellationToken,
    /// That it has finished was heard.
    told: bool,
}

impl WsUplink {
    /// The driver and the tunnel get a task of their own, so that a chunk wakes nothing else.
    pub(super) fn start<S: GatewayStream>(
        control: Control,
        io: TunnelIo,
        driver: Driver<S>,
        granted: Option<TunnelGrant>,
        gate: Arc<dyn RunnerLink>,
        engine_type: String,
    ) -> Self {
        let mut driving = JoinSet::new();
        let tunnel = match granted {
            None => {
                drop(io);
                driving.spawn(driver);
                None
            }
            Some(grant) => {
                let (finish, ended) = (CancellationToken::new(), CancellationToken::new());
                let tunnel = Tunnel { finish: finish.clone(), ended: ended.clone(), told: false };
                let serving = async move {
                    let _ended = ended.drop_guard();
                    tunnel::serve(io, gate, grant.max_streams, finish).await;
                };
                driving.spawn(driver.beside(serving));
                Some(tunnel)
            }
        };
        Self { control, driving, tunnel, engine_type }
    }

    fn on_wire(&self, word: FromRunner) -> Option<RunnerMessage> {
        let status = |status| RunnerStatus::from_core(status, &self.engine_type);
        Some(match word {
            FromRunner::Heartbeat(now) => RunnerMessage::Heartbeat(status(&now)),
            FromRunner::Status(now) => RunnerMessage::StatusUpdate(status(&now)),
            FromRunner::Reply { request_id, reply } => {
                RunnerMessage::CommandResponse(CommandResponse::new(request_id, reply, &self.engine_type))
            }
            FromRunner::Alive => return None,
        })
    }
}

#[async_trait]
impl Uplink for WsUplink {
    fn say(&self, word: FromRunner) -> Result<(), Unsaid> {
        match self.on_wire(word) {
            Some(message) => Ok(self.control.sender().send(message.to_text())?),
            None => Ok(()),
        }
    }

    async fn hear(&mut self) -> Result<Heard, Failed> {
        let finished = async {
            match &self.tunnel {
                // Its end matters only to who waits for it.
                Some(tunnel) if tunnel.finish.is_cancelled() && !tunnel.told => {
                    tunnel.ended.cancelled().await
                }
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            // First what was said: why the gateway closes the connection is said just before.
            Some(text) = self.control.recv() => Ok(Heard::Word(understand(&text))),
            ended = self.driving.join_next() => Err(end_of(ended)),
            () = finished => {
                if let Some(tunnel) = &mut self.tunnel {
                    tunnel.told = true;
                }
                Ok(Heard::Finished)
            }
        }
    }

    fn finish(&mut self) {
        if let Some(tunnel) = &self.tunnel {
            tunnel.finish.cancel();
        }
    }

    async fn close(&mut self) {
        if !self.driving.is_empty() && self.control.sender().close().is_ok() {
            self.driving.join_next().await;
        }
    }
}

fn understand(text: &str) -> FromGateway {
    match GatewayMessage::parse(text) {
        Ok(GatewayMessage::LoadModel { model_id, request_id }) => {
            FromGateway::Command { request_id, order: Order::Load(model_id) }
        }
        Ok(GatewayMessage::UnloadModel { model_id, request_id }) => {
            FromGateway::Command { request_id, order: Order::Unload(model_id) }
        }
        Ok(GatewayMessage::RequestStatus { request_id }) => {
            FromGateway::Command { request_id, order: Order::Status }
        }
        Ok(GatewayMessage::Ping { .. }) => FromGateway::Ping,
        Ok(GatewayMessage::Error { code, message }) => FromGateway::Error { code, message },
        Ok(GatewayMessage::RegisterAck { .. }) => FromGateway::Alive,
        Err(error) => {
            tracing::debug!(%error, "a message from the gateway is not understood");
            FromGateway::Alive
        }
    }
}

fn end_of(ended: Option<Result<Result<(), SocketError>, JoinError>>) -> Failed {
    match ended {
        Some(Ok(Err(error))) => Failed::Broken(Box::new(error)),
        Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        _ => Failed::Closed,
    }
}
