//! The link to a runner that dialled in.

use std::sync::Arc;

use async_trait::async_trait;
use gateway_core::{
    CancellationToken, Command, CommandReply, LinkDescription, LinkError, LinkRequest, LinkResponse,
    RunnerLink,
};

use super::commands::Commands;
use crate::dial_back::DialBackLink;
use crate::tunnel::TunnelLink;

/// Requests go one of two ways, commands through the control protocol.
pub(super) struct RunnerConnection {
    pub(super) way: Way,
    pub(super) commands: Arc<Commands>,
    /// Cancelled: the connection is to end.
    pub(super) close: CancellationToken,
}

/// How requests reach the runner.
pub(super) enum Way {
    Tunnel(TunnelLink),
    DialBack(DialBackLink),
}

impl Way {
    fn link(&self) -> &dyn RunnerLink {
        match self {
            Self::Tunnel(link) => link,
            Self::DialBack(link) => link,
        }
    }
}

#[async_trait]
impl RunnerLink for RunnerConnection {
    fn describe(&self) -> LinkDescription {
        self.way.link().describe()
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        if self.close.is_cancelled() {
            return Err(LinkError::not_sent("the runner's connection is closed"));
        }
        self.way.link().send(request).await
    }

    fn can_upgrade(&self) -> bool {
        self.way.link().can_upgrade()
    }

    async fn command(&self, command: Command) -> Result<CommandReply, LinkError> {
        self.commands.run(command).await
    }

    fn close(&self) {
        self.close.cancel();
        self.way.link().close();
    }
}
