//! What a runner can be asked besides inference.

use crate::names::ModelId;
use crate::runner::RunnerStatus;

/// Something other than inference that a runner is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Bring a model into memory; answered when that is done.
    LoadModel(ModelId),
    /// Take a model out of memory.
    UnloadModel(ModelId),
    /// Say how it is.
    Status,
}

impl Command {
    /// The command's name on the wire and in logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::LoadModel(_) => "load_model",
            Self::UnloadModel(_) => "unload_model",
            Self::Status => "request_status",
        }
    }
}

/// A runner's answer to a [`Command`]. It came in time; whether the runner did it is in `result`.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandReply {
    /// `Err` holds the runner's own words on why it could not.
    pub result: Result<(), String>,
    /// Its status afterwards, if it sent one.
    pub status: Option<RunnerStatus>,
}
