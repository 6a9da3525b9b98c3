//! What a mock runner does with a command.

use std::time::Duration;

use gateway_core::{CommandReply, LinkError, RunnerStatus};
use tokio::time::sleep;

/// How one command ends.
#[derive(Debug, Clone)]
pub struct CommandScript {
    delay: Duration,
    end: End,
}

#[derive(Debug, Clone)]
enum End {
    Reply(Box<CommandReply>),
    Unsupported,
    Lost,
    Never,
}

impl CommandScript {
    fn new(end: End) -> Self {
        Self { delay: Duration::ZERO, end }
    }

    /// It is done, and nothing is said of how the runner is then.
    pub fn done() -> Self {
        Self::new(End::Reply(Box::new(CommandReply { result: Ok(()), status: None })))
    }

    /// The runner refuses in these words.
    pub fn refused(words: impl Into<String>) -> Self {
        Self::new(End::Reply(Box::new(CommandReply { result: Err(words.into()), status: None })))
    }

    /// The link does not know the command.
    pub fn unsupported() -> Self {
        Self::new(End::Unsupported)
    }

    /// The connection is lost before the answer.
    pub fn lost() -> Self {
        Self::new(End::Lost)
    }

    /// There is no answer.
    pub fn never() -> Self {
        Self::new(End::Never)
    }

    /// With this status in the reply.
    pub fn with_status(mut self, status: RunnerStatus) -> Self {
        if let End::Reply(reply) = &mut self.end {
            reply.status = Some(status);
        }
        self
    }

    /// Takes this long.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    pub(crate) async fn play(self) -> Result<CommandReply, LinkError> {
        if !self.delay.is_zero() {
            sleep(self.delay).await;
        }
        match self.end {
            End::Reply(reply) => Ok(*reply),
            End::Unsupported => Err(LinkError::unsupported("scripted")),
            End::Lost => Err(LinkError::lost("scripted")),
            End::Never => std::future::pending().await,
        }
    }
}

/// What became of the commands of a [`MockEngine`](crate::MockEngine).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommandCounts {
    /// Commands that arrived.
    pub started: u64,
    /// Commands that ended as scripted.
    pub ended: u64,
    /// Commands whose other side went away before.
    pub given_up: u64,
}
