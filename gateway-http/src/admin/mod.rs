//! What admins see and do.

mod commands;
mod events;
mod explain;
mod runners;
mod time;

pub(crate) use commands::{CommandDone, command};
pub(crate) use events::{COMMANDS_KEPT, MAX_WATCHERS, events};
pub(crate) use explain::explain;
pub(crate) use runners::runners;
