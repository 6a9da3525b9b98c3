use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::lifecycle::ModelLoad;
use crate::names::{ModelId, RequestId};
use crate::queue::Waited;
use crate::runner::Runner;
use crate::workload::Workload;

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The runner answered and the answer went through whole.
    Success,
    /// The client's mistake: the runner refused the request, or the client's own body broke off.
    ClientFault,
    /// The runner's mistake. The only outcome that may count against a runner's health.
    RunnerFault(Fault),
    /// The runner has too much to do: 429 or 503.
    Overloaded,
    /// Given up before its end, by nobody's fault.
    Cancelled(Cancel),
    /// The runner saw nothing of it.
    NeverSent,
}

/// What a runner did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It answered with a server error, or refused the gateway's own credentials.
    Status,
    /// The connection failed after the request was sent.
    Connection,
    /// Nothing came within the time to first byte.
    FirstByteTimeout,
    /// The answer stood still for longer than the idle time.
    IdleTimeout,
}

/// Why a request was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cancel {
    /// The client went away, or whoever held the answer dropped it.
    ByCaller,
    /// The time for the whole request was up.
    Deadline,
}

impl Outcome {
    /// What a runner's status says, before anything is known of the body. See [`Terms::verbatim`](super::Terms::verbatim).
    pub(super) fn of_status(status: StatusCode, verbatim: bool) -> Self {
        match status.as_u16() {
            429 | 503 => Self::Overloaded,
            401 | 403 | 407 if verbatim => Self::ClientFault,
            // The client's key is checked here; these mean that the runner does not trust the gateway.
            401 | 403 | 407 => Self::RunnerFault(Fault::Status),
            // Not implemented is about the request, not about the runner's health; another may have it.
            501 => Self::ClientFault,
            400..=499 => Self::ClientFault,
            500..=599 => Self::RunnerFault(Fault::Status),
            _ => Self::Success,
        }
    }

    /// Whether the runner may still be at the work when the try has ended.
    pub(crate) fn leaves_work_behind(self) -> bool {
        match self {
            Self::Cancelled(_) => true,
            Self::RunnerFault(fault) => fault != Fault::Status,
            Self::Success | Self::ClientFault | Self::Overloaded | Self::NeverSent => false,
        }
    }

    /// The word for it in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ClientFault => "client_fault",
            Self::RunnerFault(Fault::Status) => "runner_fault_status",
            Self::RunnerFault(Fault::Connection) => "runner_fault_connection",
            Self::RunnerFault(Fault::FirstByteTimeout) => "runner_fault_first_byte_timeout",
            Self::RunnerFault(Fault::IdleTimeout) => "runner_fault_idle_timeout",
            Self::Overloaded => "overloaded",
            Self::Cancelled(Cancel::ByCaller) => "cancelled",
            Self::Cancelled(Cancel::Deadline) => "deadline",
            Self::NeverSent => "never_sent",
        }
    }

    /// Every outcome, for whoever prepares a counter for each.
    pub const ALL: [Self; 10] = [
        Self::Success,
        Self::ClientFault,
        Self::RunnerFault(Fault::Status),
        Self::RunnerFault(Fault::Connection),
        Self::RunnerFault(Fault::FirstByteTimeout),
        Self::RunnerFault(Fault::IdleTimeout),
        Self::Overloaded,
        Self::Cancelled(Cancel::ByCaller),
        Self::Cancelled(Cancel::Deadline),
        Self::NeverSent,
    ];
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One finished try of one request on one runner.
#[derive(Debug)]
#[non_exhaustive]
pub struct Attempt<'a> {
    /// The request.
    pub request_id: &'a RequestId,
    /// The model that was asked of the runner: the one that the request names, or one that the name stands for.
    pub model: Option<&'a ModelId>,
    /// How much work it was said to be.
    pub workload: &'a Workload,
    /// The runner.
    pub runner: &'a Arc<Runner>,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether the answer came as it was written. If not, its first byte came when all of it had been.
    pub streamed: bool,
    /// From the sending to the first byte of the answer's body; `None` if none came.
    pub first_byte: Option<Duration>,
    /// From the sending to the end.
    pub duration: Duration,
    /// Bytes of the answer's body that were passed on.
    pub bytes: u64,
    /// Chunks of the answer's body that were passed on; with most engines a chunk is a token.
    pub chunks: u32,
    /// Prompt tokens that the runner had to read before the answer could begin, those of prompts ahead of it
    /// included, as far as that was known when it was sent; 0 if unknown.
    pub prefill_tokens: u64,
}

/// Is told of every finished try: metrics, breakers, logs.
pub trait Observer: Send + Sync + 'static {
    /// Called once for every reservation that was used, just before its slot is given back. Must not
    /// block: it runs where the answer's body is polled or dropped.
    fn attempt(&self, attempt: &Attempt<'_>);

    /// Called once for every request that waited in the admission queue, or was not let into it. Must not
    /// block.
    fn waited(&self, waited: &Waited<'_>) {
        let _ = waited;
    }

    /// Called once for every order to load a model that was given because requests ask for it, when it has
    /// ended or was given up. Must not block.
    fn loaded(&self, load: &ModelLoad<'_>) {
        let _ = load;
    }
}
