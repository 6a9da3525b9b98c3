//! A list that the host changes.

use async_trait::async_trait;
use gateway_core::{Inventory, InventoryChange};
use tokio::sync::watch;

use crate::source::HttpRunner;

/// Changes the list of [`HttpRunners::handle`](crate::HttpRunners::handle) while the gateway runs, as a
/// program does that reads its configuration anew. Cheap to clone; the latest list wins.
///
/// When every handle is dropped, the last list stays.
#[derive(Debug, Clone)]
pub struct HttpRunnersHandle {
    tell: watch::Sender<Option<Vec<HttpRunner>>>,
}

impl HttpRunnersHandle {
    /// Sets the whole list. Runners that are in it as they were are not disturbed, those that are not in it
    /// any more drain. Does not wait; a list that nobody has taken up yet is replaced.
    pub fn set(&self, runners: Vec<HttpRunner>) {
        self.tell.send_replace(Some(runners));
    }
}

/// The other end of a handle.
#[derive(Debug)]
pub(crate) struct Handed {
    told: watch::Receiver<Option<Vec<HttpRunner>>>,
}

impl Handed {
    pub(crate) fn new() -> (HttpRunnersHandle, Self) {
        let (tell, told) = watch::channel(None);
        (HttpRunnersHandle { tell }, Self { told })
    }
}

#[async_trait]
impl Inventory for Handed {
    type Entry = HttpRunner;

    async fn next(&mut self) -> Option<InventoryChange<HttpRunner>> {
        loop {
            self.told.changed().await.ok()?;
            let list = self.told.borrow_and_update().clone();
            if let Some(list) = list {
                return Some(InventoryChange::All(list));
            }
        }
    }
}
