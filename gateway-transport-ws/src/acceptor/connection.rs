//! A registered connection.

use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use gateway_core::{CancellationToken, ReportedLoad};
use gateway_dial_in::gateway::{Connection, End, Voice};
use gateway_dial_in::{FromGateway, FromRunner, Order, Unsaid};

use crate::protocol::{GatewayMessage, RunnerMessage, RunnerStatus};
use crate::socket::{Control, ControlSender, SendError, SocketError};

/// Moves what goes through a socket until its end.
pub(super) type Driving = Pin<Box<dyn Future<Output = Result<(), SocketError>> + Send>>;

/// A WebSocket whose runner is in.
pub(super) struct WsConnection {
    pub(super) control: Control,
    /// Owns the socket and moves what goes through it; `None` once the connection has ended. Here and not in a task of
    /// its own, so that a heartbeat wakes one task and not two.
    pub(super) driving: Option<Driving>,
    /// It has been driven in this turn of its task, and what came with that is not all heard yet.
    pub(super) driven: bool,
    /// The runner counts its requests in its capabilities: it has said so with a figure above zero, so that
    /// from then on zero means zero.
    pub(super) counts_requests: bool,
    /// Cancelled: the tunnel is to end.
    pub(super) close: CancellationToken,
    pub(super) last: LastWords,
}

/// What a runner said last. Idle runners say the same again with every heartbeat, and reading it is most of what one
/// costs.
#[derive(Default)]
pub(super) struct LastWords {
    keys: RandomState,
    /// By a hash whose keys nobody knows, so that nobody finds other words with the same.
    last: Option<(u64, Arc<gateway_core::RunnerStatus>)>,
}

impl LastWords {
    fn key(&self, text: &str) -> u64 {
        self.keys.hash_one(text)
    }

    fn find(&self, key: u64) -> Option<&Arc<gateway_core::RunnerStatus>> {
        self.last.as_ref().filter(|(last, _)| *last == key).map(|(_, status)| status)
    }
}

impl WsConnection {
    /// Moves what there is. Ready when the connection has ended.
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(driving) = &mut self.driving {
            let ended = ready!(driving.as_mut().poll(cx));
            self.driving = None;
            if let Err(error) = ended {
                tracing::debug!(%error, "a runner's connection broke");
            }
        }
        Poll::Ready(())
    }

    fn understand(&mut self, text: &str) -> FromRunner {
        let key = self.last.key(text);
        if let Some(status) = self.last.find(key) {
            return FromRunner::Heartbeat(status.clone());
        }
        match RunnerMessage::parse(text) {
            Ok(RunnerMessage::Heartbeat(status)) => {
                let status = Arc::new(self.noted(&status));
                self.last.last = Some((key, status.clone()));
                FromRunner::Heartbeat(status)
            }
            Ok(RunnerMessage::StatusUpdate(status)) => FromRunner::Status(self.noted(&status)),
            Ok(RunnerMessage::CommandResponse(response)) => {
                let mut reply = response.reply();
                reply.status = response.status.as_ref().map(|status| self.noted(status));
                FromRunner::Reply { request_id: response.request_id, reply }
            }
            Ok(RunnerMessage::Register(register)) => {
                tracing::debug!(runner = register.runner_id, "a runner registers twice on one connection");
                FromRunner::Alive
            }
            Err(error) => {
                tracing::debug!(%error, "a message from a runner is not understood");
                FromRunner::Alive
            }
        }
    }

    fn noted(&mut self, status: &RunnerStatus) -> gateway_core::RunnerStatus {
        let mut core = status.to_core();
        let active = status.active_requests();
        if !self.counts_requests && active.is_some_and(|active| active > 0) {
            self.counts_requests = true;
            // The same words mean something else now.
            self.last.last = None;
        }
        if core.load.is_none() && self.counts_requests && active.is_some() {
            core.load = Some(ReportedLoad { active: 0, queued: 0 });
        }
        core
    }
}

#[async_trait]
impl Connection for WsConnection {
    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<Option<FromRunner>> {
        // Once for all that has come with it: what comes later wakes this task.
        if !self.driven {
            let _ = self.drive(cx);
        }
        let text = self.control.try_recv();
        self.driven = text.is_some();
        match text {
            Some(text) => Poll::Ready(Some(self.understand(&text))),
            None if self.driving.is_none() => Poll::Ready(None),
            // Nothing comes but by the driver.
            None => Poll::Pending,
        }
    }

    fn voice(&self) -> Arc<dyn Voice> {
        Arc::new(self.control.sender().clone())
    }

    async fn close(&mut self, _: End) {
        self.close.cancel();
        if self.control.sender().close().is_ok() {
            poll_fn(|cx| self.drive(cx)).await;
        }
    }
}

impl Voice for ControlSender {
    fn say(&self, word: FromGateway) -> Result<(), Unsaid> {
        let message = match word {
            FromGateway::Command { request_id, order: Order::Load(model_id) } => {
                GatewayMessage::LoadModel { model_id, request_id }
            }
            FromGateway::Command { request_id, order: Order::Unload(model_id) } => {
                GatewayMessage::UnloadModel { model_id, request_id }
            }
            FromGateway::Command { request_id, order: Order::Status } => {
                GatewayMessage::RequestStatus { request_id }
            }
            FromGateway::Ping => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                GatewayMessage::Ping { timestamp: i64::try_from(now.as_secs()).unwrap_or(i64::MAX) }
            }
            FromGateway::Error { code, message } => GatewayMessage::Error { code, message },
            FromGateway::Alive => return Ok(()),
        };
        Ok(self.send(message.to_text())?)
    }
}

impl From<SendError> for Unsaid {
    fn from(error: SendError) -> Self {
        match error {
            SendError::TooSlow => Self::TooSlow,
            SendError::Ended => Self::Ended,
            SendError::TooLong(len) => Self::TooLong(len),
        }
    }
}
