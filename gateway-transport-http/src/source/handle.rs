//! Runners that the host changes while they are at work.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::runner::{Defaults, HttpRunner};
use super::supervise::Policy;
use super::{HttpRunners, Supply};
use crate::inventory::FixedList;

/// Changes the runners of [`HttpRunners::handle`] while the gateway runs, as a program does that reads its
/// configuration anew. Cheap to clone. The latest word counts; nothing of it waits.
///
/// When every handle is dropped, all stays as it was said last.
#[derive(Clone)]
pub struct HttpRunnersHandle {
    desk: Arc<Desk>,
}

/// Where a change lies until it is taken up.
#[derive(Default)]
struct Desk {
    /// At most one: a later change takes the place of one that nobody has taken up yet.
    change: Mutex<Option<Change>>,
    stirred: Notify,
}

/// What is to be from now on.
pub(super) struct Change {
    pub(super) supply: Supply,
    /// `None`: as before.
    pub(super) terms: Option<(Defaults, Policy)>,
}

/// The source's end of a handle.
pub(super) struct Changes {
    desk: Arc<Desk>,
}

pub(super) fn handle() -> (HttpRunnersHandle, Changes) {
    let desk = Arc::<Desk>::default();
    (HttpRunnersHandle { desk: desk.clone() }, Changes { desk })
}

impl HttpRunnersHandle {
    /// Sets the whole list. Runners that are in it as they were are not disturbed, those that are not in it
    /// any more drain. What was said for all of them stays.
    pub fn set(&self, runners: Vec<HttpRunner>) {
        let mut change = self.desk.lock();
        let terms = change.take().and_then(|change| change.terms);
        *change = Some(Change { supply: Supply::Fixed(FixedList::runners(runners)), terms });
        drop(change);
        self.desk.stirred.notify_one();
    }

    /// Puts `runners` in the place of all that was said: where it is known which there are, what is said for
    /// all of them, and limits. A runner that comes out the same is not disturbed, whichever inventory tells
    /// of it. Those of before stay until the new inventory has told its first
    /// [list](gateway_core::InventoryChange::All). A handle that `runners` came with has no effect any more.
    ///
    /// ```
    /// use gateway_transport_http::{DnsNames, HttpRunners};
    ///
    /// let (handle, runners) = HttpRunners::handle();
    /// // `runners` goes to the gateway. Whenever the configuration has changed:
    /// handle.replace(HttpRunners::from_inventory(DnsNames::new(["dns://llm:8000"])?).slots(16));
    /// # drop(runners);
    /// # Ok::<(), gateway_transport_http::InvalidAddress>(())
    /// ```
    pub fn replace(&self, runners: HttpRunners) {
        let HttpRunners { supply, defaults, policy, .. } = runners;
        *self.desk.lock() = Some(Change { supply, terms: Some((defaults, policy)) });
        self.desk.stirred.notify_one();
    }
}

impl Changes {
    /// The next change. Cancel safe.
    pub(super) async fn next(&self) -> Change {
        loop {
            let change = self.desk.lock().take();
            match change {
                Some(change) => return change,
                None => self.desk.stirred.notified().await,
            }
        }
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Option<Change>> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for HttpRunnersHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRunnersHandle").finish_non_exhaustive()
    }
}
