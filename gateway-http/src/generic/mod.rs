//! Requests of any kind that go to runners without being looked into.

mod asked;
mod forward;
mod forwarded;
mod paths;
mod route;
mod table;
mod upgrade;
mod upload;

pub(crate) use asked::GenericAsked;
pub(crate) use forward::forward;
pub use forwarded::{Forwarding, InvalidNetwork};
pub use route::{GenericRoute, InvalidRoute};
pub(crate) use table::{Found, GenericTable};

/// The most connections that have changed to another protocol at once: with a buffer each way some hundred MiB
/// in the worst case. One more is answered with 503.
pub(crate) const MAX_UPGRADED: usize = 4096;
