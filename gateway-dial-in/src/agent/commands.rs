//! What a gateway has ordered and what is not yet done.

use std::future::Future;
use std::sync::Arc;

use gateway_core::{Command, RunnerLink};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Shared;
use super::report::Reports;
use crate::Order;

/// Most commands that one gateway may have under way; further ones are answered with an error at once.
pub(super) const MAX_COMMANDS: usize = 16;

/// The commands of one connection. Dropping it gives up what is not yet done: nobody would hear of it.
#[derive(Debug, Default)]
pub(super) struct Commands {
    running: JoinSet<Done>,
}

/// A command that is done, or given up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) request_id: String,
    pub(super) result: Result<(), String>,
}

impl Commands {
    /// Starts a command. What cannot be started is done at once, with an error.
    pub(super) fn start(
        &mut self,
        request_id: String,
        order: Order,
        shared: &Arc<Shared>,
        reports: &Reports,
    ) -> Option<Done> {
        match self.prepare(order, shared, reports) {
            Ok(work) => {
                self.running.spawn(async move { Done { request_id, result: work.await } });
                None
            }
            Err(words) => Some(Done { request_id, result: Err(words) }),
        }
    }

    fn prepare(
        &self,
        order: Order,
        shared: &Arc<Shared>,
        reports: &Reports,
    ) -> Result<impl Future<Output = Result<(), String>> + Send + 'static, String> {
        if self.running.len() >= MAX_COMMANDS {
            return Err(format!("{MAX_COMMANDS} commands are under way already; try again later"));
        }
        let command = match &order {
            Order::Status => None,
            Order::Load(_) | Order::Unload(_) if shared.gate.count().is_closed() => {
                return Err("this runner is shutting down".to_owned());
            }
            Order::Load(name) => Some(Command::LoadModel(reports.canonical(name)?)),
            Order::Unload(name) => Some(Command::UnloadModel(reports.canonical(name)?)),
        };
        let (shared, mut reports) = (shared.clone(), reports.clone());
        Ok(async move {
            let result = match command {
                Some(command) => carry_out(&shared, command).await,
                None => Ok(()),
            };
            // The answer comes with fresh status, and so do the other gateways hear of it.
            reports.refresh().await;
            result
        })
    }

    /// The next command that is done; waits for ever if none is under way. Cancel safe.
    pub(super) async fn next(&mut self) -> Done {
        match self.running.join_next().await {
            Some(Ok(done)) => done,
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Some(Err(_)) | None => std::future::pending().await,
        }
    }
}

async fn carry_out(shared: &Shared, command: Command) -> Result<(), String> {
    let limit = shared.settings.command_timeout;
    let name = command.name();
    match timeout(limit, shared.gate.command(command)).await {
        Ok(Ok(reply)) => reply.result,
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the engine did not finish {name} within {} s", limit.as_secs_f64())),
    }
}
