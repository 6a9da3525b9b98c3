//! The link to a runner that dialled in.

use std::sync::Arc;

use async_trait::async_trait;
use gateway_core::{
    CancellationToken, Command, CommandReply, LinkAbilities, LinkDescription, LinkError, LinkRequest,
    LinkResponse, RunnerLink,
};

use super::commands::Commands;

/// Requests go the transport's way, commands through what both sides say.
pub(super) struct DialledIn {
    pub(super) way: Arc<dyn RunnerLink>,
    pub(super) commands: Arc<Commands>,
    /// Cancelled: the connection is to end.
    pub(super) close: CancellationToken,
}

#[async_trait]
impl RunnerLink for DialledIn {
    fn describe(&self) -> LinkDescription {
        self.way.describe()
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        if self.close.is_cancelled() {
            return Err(LinkError::not_sent("the runner's connection is closed"));
        }
        self.way.send(request).await
    }

    fn abilities(&self) -> LinkAbilities {
        self.way.abilities()
    }

    async fn command(&self, command: Command) -> Result<CommandReply, LinkError> {
        self.commands.run(command).await
    }

    fn close(&self) {
        self.close.cancel();
        self.way.close();
    }
}
