//! What both sides say once a runner is in, whatever it looks like on the wire.

use std::sync::Arc;

use gateway_core::{CommandReply, RunnerStatus};

/// What a runner says.
#[derive(Debug, Clone, PartialEq)]
pub enum FromRunner {
    /// How it is, as often as its heartbeat goes. Who knows that it is the same as the last time gives the same
    /// [`Arc`]: then nothing is compared.
    Heartbeat(Arc<RunnerStatus>),
    /// How it is, because something has changed or it was asked.
    Status(RunnerStatus),
    /// A command is done, or could not be done.
    Reply {
        /// The command's.
        request_id: String,
        /// What came of it.
        reply: CommandReply,
    },
    /// It lives. For what is not understood, and what has no meaning once a runner is in.
    Alive,
}

/// What a gateway says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromGateway {
    /// Do something other than inference, and answer with a [`FromRunner::Reply`].
    Command {
        /// To be named in the answer.
        request_id: String,
        /// What is to be done.
        order: Order,
    },
    /// Are you there? Answered with a [`FromRunner::Status`].
    Ping,
    /// Something is wrong; the connection is about to end.
    Error {
        /// For programs.
        code: String,
        /// For people.
        message: String,
    },
    /// It lives. For what is not understood, and what has no meaning once a runner is in.
    Alive,
}

/// What a command asks for. Models are named in the gateway's words, which may be no
/// [`ModelId`](gateway_core::ModelId) at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Bring a model into memory.
    Load(String),
    /// Take a model out of memory.
    Unload(String),
    /// Say how you are.
    Status,
}

/// Why something could not be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsaid {
    /// The peer has not taken as many messages as may wait: it is too slow, close the connection.
    #[error("the peer does not take its control messages")]
    TooSlow,
    /// The connection has ended.
    #[error("the connection has ended")]
    Ended,
    /// The message is longer than the transport carries.
    #[error("a control message of {0} bytes is too long")]
    TooLong(usize),
}
