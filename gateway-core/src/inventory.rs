//! Which runners there are, as a stream of changes.

use async_trait::async_trait;

use crate::names::RunnerId;

/// Tells which runners there are, as a stream of changes: a list, a name service, a cluster, or an
/// inventory of your own.
///
/// It tells and does no more: whoever reads it finds out what has changed, brings runners in and lets those
/// that have gone drain. So it may say the same thing twice, and a whole list after every change is fine. Best
/// it begins with a whole list: if it takes another inventory's place, that tells which of the other's have gone.
///
/// ```
/// use async_trait::async_trait;
/// use gateway_core::{Inventory, InventoryChange};
///
/// /// Tells one list, then nothing more.
/// struct Once<E>(Option<Vec<E>>);
///
/// #[async_trait]
/// impl<E: Send + 'static> Inventory for Once<E> {
///     type Entry = E;
///
///     async fn next(&mut self) -> Option<InventoryChange<E>> {
///         self.0.take().map(InventoryChange::All)
///     }
/// }
/// ```
#[async_trait]
pub trait Inventory: Send + 'static {
    /// What is told of one runner, such as `gateway_transport_http::HttpRunner`.
    type Entry: Send + 'static;

    /// The next change. Pending for as long as nothing changes. `None`: nothing will ever change again, and
    /// what is known stays.
    ///
    /// What goes wrong on the way is the inventory's own affair: it logs it, keeps what it knows and tries
    /// again after a pause.
    ///
    /// Must be cancel safe: dropping the future loses no change.
    async fn next(&mut self) -> Option<InventoryChange<Self::Entry>>;
}

/// What an [`Inventory`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InventoryChange<E> {
    /// The whole list: what is not in it has gone.
    All(Vec<E>),
    /// One that is new or has changed.
    Found(E),
    /// One that has gone. It drains.
    Gone(RunnerId),
}
