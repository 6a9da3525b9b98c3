//! One engine of supervision over any inventory: who is new is watched, who has gone drains.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use gateway_core::{CancellationToken, Inventory, InventoryChange, Registry, RunnerId};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Supply;
use super::drains::Drains;
use super::handle::{Change, Changes};
use super::runner::{Defaults, HttpRunner};
use super::watch::{Fate, watch};

/// What the watches of one source share.
pub(super) struct Shared {
    pub(super) registry: Arc<dyn Registry>,
    pub(super) stop: CancellationToken,
    pub(super) drains: Drains,
    drain_timeout: Mutex<Duration>,
}

impl Shared {
    pub(super) fn drain_timeout(&self) -> Duration {
        *self.drain_timeout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_drain_timeout(&self, limit: Duration) {
        *self.drain_timeout.lock().unwrap_or_else(PoisonError::into_inner) = limit;
    }
}

/// How many runners there may be, and how they go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    pub(super) max_runners: usize,
    pub(super) drain_timeout: Duration,
    pub(super) handover: Duration,
}

pub(super) struct Supervisor {
    shared: Arc<Shared>,
    defaults: Defaults,
    policy: Policy,
    known: HashMap<RunnerId, Known>,
    /// One for each runner that is known, and for each that drains. The latter have a request under way each,
    /// or they would have ended: so there are no more of them than requests.
    watches: JoinSet<()>,
}

/// One that the inventory has.
struct Known {
    /// With what is said for all.
    entry: HttpRunner,
    /// To its watch, which is the last, and to those of its former selves that are not done yet.
    fates: Vec<watch::Sender<Fate>>,
}

impl Supervisor {
    pub(super) fn new(
        registry: Arc<dyn Registry>,
        stop: CancellationToken,
        defaults: Defaults,
        policy: Policy,
    ) -> Self {
        let drain_timeout = Mutex::new(policy.drain_timeout);
        let shared = Arc::new(Shared { registry, stop, drains: Drains::default(), drain_timeout });
        Self { shared, defaults, policy, known: HashMap::new(), watches: JoinSet::new() }
    }

    /// Follows the inventory until it is told to stop, and ends every watch before it returns.
    pub(super) async fn run(mut self, supply: Supply, changes: Option<Changes>) {
        let stop = self.shared.stop.clone();
        let mut supply = Some(supply);
        while !stop.is_cancelled() {
            let news = {
                let mut told = pin!(tell(&mut supply));
                let mut changed = pin!(changed(changes.as_ref()));
                // One future for as long as it takes: watches that end do not make the inventory begin anew.
                loop {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break None,
                        Some(ended) = self.watches.join_next() => log_if_broken(ended),
                        change = changed.as_mut() => break Some(News::Changed(change)),
                        told = told.as_mut() => break Some(News::Told(told)),
                    }
                }
            };
            match news {
                Some(News::Told(Some(change))) => self.apply(change),
                Some(News::Changed(change)) => {
                    supply = Some(change.supply);
                    if let Some((defaults, policy)) = change.terms {
                        self.shared.set_drain_timeout(policy.drain_timeout);
                        (self.defaults, self.policy) = (defaults, policy);
                    }
                }
                // What is known stays until it is told to stop.
                Some(News::Told(None)) | None => supply = None,
            }
        }
        while let Some(ended) = self.watches.join_next().await {
            log_if_broken(ended);
        }
    }

    fn apply(&mut self, change: InventoryChange<HttpRunner>) {
        let mut too_many = 0;
        match change {
            InventoryChange::All(entries) => {
                let mut listed = HashSet::with_capacity(entries.len());
                let (entries, twice): (Vec<_>, Vec<_>) =
                    entries.into_iter().partition(|entry| listed.insert(entry.runner_id().clone()));
                for entry in twice {
                    tracing::error!(runner = %entry.runner_id(), "a runner is left out: its id is there twice");
                }
                // First, so that there is room for those that come.
                let gone: Vec<_> = self.known.keys().filter(|id| !listed.contains(*id)).cloned().collect();
                gone.iter().for_each(|id| self.retire(id));
                for entry in entries {
                    too_many += usize::from(!self.admit(entry));
                }
            }
            InventoryChange::Found(entry) => too_many += usize::from(!self.admit(entry)),
            InventoryChange::Gone(id) => self.retire(&id),
        }
        if too_many > 0 {
            let most = self.policy.max_runners;
            tracing::error!(left_out = too_many, max_runners = most, "there are more runners than may be");
        }
    }

    /// `false` if there are too many already.
    fn admit(&mut self, entry: HttpRunner) -> bool {
        let entry = entry.or(&self.defaults);
        let id = entry.runner_id();
        match self.known.get(id) {
            Some(known) if known.entry == entry => return true,
            None if self.known.len() >= self.policy.max_runners => return false,
            _ => {}
        }
        let parts = match entry.clone().into_parts() {
            Ok(parts) => parts,
            Err(error) => {
                // Its former self, if there is one, is better than nothing.
                let stays_as_it_was = self.known.contains_key(id);
                tracing::error!(runner = %id, %error, stays_as_it_was, "a runner is left out");
                return true;
            }
        };
        let (tell, fate) = watch::channel(Fate::Stay);
        let mut fates = self.known.remove(id).map(|known| known.fates).unwrap_or_default();
        fates.retain(|fate| !fate.is_closed());
        let until = Instant::now() + self.policy.handover;
        for fate in &fates {
            fate.send_if_modified(|fate| {
                let stays = *fate == Fate::Stay;
                if stays {
                    *fate = Fate::HandOver { until };
                }
                stays
            });
        }
        fates.push(tell);
        self.watches.spawn(watch(parts, self.shared.clone(), fate));
        self.known.insert(id.clone(), Known { entry, fates });
        true
    }

    fn retire(&mut self, id: &RunnerId) {
        let Some(known) = self.known.remove(id) else { return };
        for fate in known.fates {
            fate.send_replace(Fate::Drain);
        }
    }
}

#[allow(clippy::large_enum_variant, reason = "there is one of it, for one turn of a loop")]
enum News {
    /// By the inventory; `None`: it will never say anything again.
    Told(Option<InventoryChange<HttpRunner>>),
    /// By the host.
    Changed(Change),
}

/// What the inventory tells next. One that breaks off has nothing more to say.
async fn tell(supply: &mut Option<Supply>) -> Option<InventoryChange<HttpRunner>> {
    let Some(inventory) = supply else { return std::future::pending().await };
    let told = AssertUnwindSafe(inventory.next()).catch_unwind().await;
    told.unwrap_or_else(|_| {
        tracing::error!("the inventory broke off: what is known stays");
        None
    })
}

async fn changed(changes: Option<&Changes>) -> Change {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

fn log_if_broken(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "the watch over a runner broke off");
    }
}
