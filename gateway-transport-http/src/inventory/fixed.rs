//! A list that never changes.

use std::fmt;

use async_trait::async_trait;
use gateway_core::{Inventory, InventoryChange};

use crate::source::{HttpRunner, InvalidRunner};

/// A fixed list of runners. An entry that cannot be used is logged as an error and left out.
///
/// ```
/// use gateway_transport_http::{FixedList, HttpRunners};
///
/// // As the variable STATIC_BACKENDS has it.
/// let list = FixedList::csv("http://10.0.0.5:8000, http://10.0.0.6:8000");
/// assert_eq!(list.len(), 2);
/// let runners = HttpRunners::from(list);
/// assert!(runners.validate().is_ok());
/// ```
#[derive(Clone)]
#[must_use = "a list does nothing until a gateway runs it"]
pub struct FixedList {
    /// Until it has been told.
    entries: Option<Vec<Result<HttpRunner, InvalidRunner>>>,
}

impl FixedList {
    /// Runners of which only the addresses are known.
    pub fn addresses<A: AsRef<str>>(addresses: impl IntoIterator<Item = A>) -> Self {
        let entries = addresses.into_iter().map(|address| Ok(HttpRunner::new(address)?));
        Self { entries: Some(entries.collect()) }
    }

    /// Addresses with commas in between. What is empty is passed over.
    pub fn csv(addresses: &str) -> Self {
        Self::addresses(addresses.split(',').map(str::trim).filter(|address| !address.is_empty()))
    }

    /// Runners of which more is known.
    pub fn runners(runners: impl IntoIterator<Item = HttpRunner>) -> Self {
        Self { entries: Some(runners.into_iter().map(Ok).collect()) }
    }

    /// How many entries there are, good or bad.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    pub(crate) fn entries(&self) -> &[Result<HttpRunner, InvalidRunner>] {
        self.entries.as_deref().unwrap_or_default()
    }
}

#[async_trait]
impl Inventory for FixedList {
    type Entry = HttpRunner;

    async fn next(&mut self) -> Option<InventoryChange<HttpRunner>> {
        let good = self.entries.take()?.into_iter().filter_map(|entry| {
            entry.inspect_err(|error| tracing::error!(%error, "a runner of the list is left out")).ok()
        });
        Some(InventoryChange::All(good.collect()))
    }
}

impl fmt::Debug for FixedList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedList").field("runners", &self.len()).finish()
    }
}
