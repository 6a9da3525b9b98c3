//! Commands on their way to a runner, and who waits for their answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gateway_core::{Command, CommandReply, LinkError};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Voice;
use crate::{FromGateway, Order};

/// The most commands that wait for one runner's answer.
const MAX_PENDING: usize = 64;

/// The commands of one connection.
pub(super) struct Commands {
    voice: Arc<dyn Voice>,
    /// `None` once the connection has ended: who waits then learns that at once.
    pending: Mutex<Option<HashMap<String, oneshot::Sender<CommandReply>>>>,
    /// For loading and unloading.
    command_timeout: Duration,
    /// For asking how it is.
    status_timeout: Duration,
}

impl Commands {
    pub(super) fn new(voice: Arc<dyn Voice>, command_timeout: Duration, status_timeout: Duration) -> Self {
        Self { voice, pending: Mutex::new(Some(HashMap::new())), command_timeout, status_timeout }
    }

    /// Sends a command and waits for its answer. Dropping the future forgets the answer; the runner still
    /// does what it was told.
    pub(super) async fn run(&self, command: Command) -> Result<CommandReply, LinkError> {
        let request_id = format!("cmd_{:032x}", fastrand::u128(..));
        let limit = match command {
            Command::LoadModel(_) | Command::UnloadModel(_) => self.command_timeout,
            Command::Status => self.status_timeout,
        };
        let (waiting, reply) = self.enter(request_id)?;
        let word = FromGateway::Command { request_id: waiting.request_id.clone(), order: order(&command) };
        if let Err(error) = self.voice.say(word) {
            return Err(LinkError::not_sent("the command could not be sent").because(error));
        }
        match timeout(limit, reply).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(LinkError::lost("the runner's connection ended before it answered")),
            Err(_) => Err(LinkError::timed_out(command.name())),
        }
    }

    /// An answer has come. One that nobody waits for any more is dropped.
    pub(super) fn complete(&self, request_id: &str, reply: CommandReply) {
        let waiting = self.pending().as_mut().and_then(|pending| pending.remove(request_id));
        match waiting {
            // Fails when who waited has gone in this moment.
            Some(waiting) => drop(waiting.send(reply)),
            None => tracing::debug!(request_id, "an answer to a command came that nobody waits for"),
        }
    }

    /// The connection has ended: who waits is told, and nobody can wait any more.
    pub(super) fn end(&self) {
        *self.pending() = None;
    }

    fn enter(&self, request_id: String) -> Result<(Waiting<'_>, oneshot::Receiver<CommandReply>), LinkError> {
        let (answer, reply) = oneshot::channel();
        let mut pending = self.pending();
        let Some(pending) = pending.as_mut() else {
            return Err(LinkError::not_sent("the runner's connection has ended"));
        };
        if pending.len() >= MAX_PENDING {
            return Err(LinkError::not_sent("too many commands wait for the runner"));
        }
        pending.insert(request_id.clone(), answer);
        Ok((Waiting { commands: self, request_id }, reply))
    }

    fn pending(&self) -> MutexGuard<'_, Option<HashMap<String, oneshot::Sender<CommandReply>>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn order(command: &Command) -> Order {
    match command {
        Command::LoadModel(model) => Order::Load(model.as_str().to_owned()),
        Command::UnloadModel(model) => Order::Unload(model.as_str().to_owned()),
        Command::Status => Order::Status,
    }
}

/// A place among those who wait, given up when it is dropped.
struct Waiting<'a> {
    commands: &'a Commands,
    request_id: String,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(pending) = self.commands.pending().as_mut() {
            pending.remove(&self.request_id);
        }
    }
}
