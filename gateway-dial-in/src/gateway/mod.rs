//! The gateway's side: who may come in, and what becomes of them.

mod commands;
mod connection;
mod link;
mod lobby;
mod refusal;
mod seldom;
mod session;
mod settings;
mod tokens;
mod watch;

pub use connection::{Connection, End, Voice};
pub use lobby::{Lobby, NoRoom, Visit};
pub use refusal::Refusal;
pub use session::Arrival;
pub use settings::Settings;
pub use tokens::Tokens;
