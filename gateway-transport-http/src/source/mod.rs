//! Runners that have an HTTP address, from wherever they are known.

mod drains;
mod handle;
mod runner;
mod supervise;
mod told;
mod watch;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gateway_core::{CancellationToken, Inventory, InventoryChange, Registry, RunnerSource};

use crate::engine::EngineKind;
#[cfg(doc)]
use crate::engine::EngineLink;
use crate::inventory::FixedList;
use handle::Changes;
pub use handle::HttpRunnersHandle;
use runner::Defaults;
pub use runner::{HttpRunner, InvalidRunner};
use supervise::{Policy, Supervisor};

/// Runners that have an HTTP address: a fixed list, or what an [`Inventory`] tells.
///
/// A runner joins when its engine has answered for the first time, or at once if its
/// [models are given](HttpRunners::models). Every 10 s its engine is asked how it is, every 2 s if it reports capacity; after three failures
/// in a row it is unhealthy, after one good answer it is well again. An entry that cannot be used is
/// logged as an error and left out; of a fixed list, [`HttpRunners::validate`] finds it beforehand.
///
/// What the inventory tells is compared, by id, with what is there. An entry that is as it was is not
/// disturbed. One that has gone *drains*: it gets no new request, finishes those that it has, and leaves. One
/// that has changed joins anew as soon as it answers; its old self serves until then (at most for
/// [`HttpRunners::HANDOVER`]) and finishes what it has.
///
/// ```
/// use gateway_transport_http::HttpRunners;
///
/// let runners = HttpRunners::fixed(["http://10.0.0.5:8000", "http://10.0.0.6:8000"]).slots(16);
/// assert!(runners.validate().is_ok());
/// assert!(HttpRunners::fixed(["https://10.0.0.5"]).validate().is_err());
/// ```
#[must_use = "a source does nothing until a gateway runs it"]
pub struct HttpRunners {
    supply: Supply,
    defaults: Defaults,
    policy: Policy,
    changes: Option<Changes>,
}

enum Supply {
    /// Kept apart, so that it can be looked at beforehand.
    Fixed(FixedList),
    Other(Box<dyn Inventory<Entry = HttpRunner>>),
}

impl HttpRunners {
    /// How often an engine is asked how it is: with three failures in a row an outage is known within half a
    /// minute.
    pub const PROBE_INTERVAL: Duration = Duration::from_secs(10);
    /// How often an engine is asked that reports what its machine has free, which changes all the time. The
    /// default of Neutrino's own gateway.
    pub const CAPACITY_INTERVAL: Duration = Duration::from_secs(2);

    /// The most runners of one source unless [set](HttpRunners::max_runners): each costs a task and an idle
    /// connection, and a list that is longer is more likely a mistake.
    pub const MAX_RUNNERS: usize = 10_000;
    /// How long a runner that has gone may take to finish what it has, unless
    /// [set](HttpRunners::drain_timeout): longer than most answers take, and much less than the hour that a
    /// request may take at most.
    pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(600);
    /// How long a runner that has changed serves as it was while its new self has not answered.
    pub const HANDOVER: Duration = Duration::from_secs(30);

    fn new(supply: Supply) -> Self {
        let policy = Policy {
            max_runners: Self::MAX_RUNNERS,
            drain_timeout: Self::DRAIN_TIMEOUT,
            handover: Self::HANDOVER,
        };
        Self { supply, defaults: Defaults::default(), policy, changes: None }
    }

    /// Runners of which only the addresses are known.
    pub fn fixed<A: AsRef<str>>(addresses: impl IntoIterator<Item = A>) -> Self {
        FixedList::addresses(addresses).into()
    }

    /// Runners of which more is known.
    pub fn list(runners: impl IntoIterator<Item = HttpRunner>) -> Self {
        FixedList::runners(runners).into()
    }

    /// The runners that an inventory tells of, as they come and go.
    pub fn from_inventory(inventory: impl Inventory<Entry = HttpRunner>) -> Self {
        Self::new(Supply::Other(Box::new(inventory)))
    }

    /// Runners that are set, and changed, through the handle; none at first.
    ///
    /// ```
    /// use gateway_transport_http::{HttpRunner, HttpRunners};
    ///
    /// let (handle, runners) = HttpRunners::handle();
    /// // `runners` goes to the gateway; then, at any time and from anywhere:
    /// handle.set(vec![HttpRunner::new("http://10.0.0.5:8000")?]);
    /// # drop(runners);
    /// # Ok::<(), gateway_transport_http::InvalidAddress>(())
    /// ```
    pub fn handle() -> (HttpRunnersHandle, Self) {
        let (handle, changes) = handle::handle();
        (handle, Self { changes: Some(changes), ..Self::fixed::<&str>([]) })
    }

    /// Fixes the models of all runners that do not have theirs fixed: their engines are not asked.
    pub fn models<M: Into<String>>(mut self, models: impl IntoIterator<Item = M>) -> Self {
        self.defaults.models = Some(models.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the most requests at once for each runner that does not have its own; 0 means unknown.
    pub fn slots(mut self, slots: u32) -> Self {
        self.defaults.slots = NonZeroU32::new(slots);
        self
    }

    /// Sets the machine's description, such as `gpu`, for each runner that does not have its own.
    pub fn machine(mut self, description: impl Into<String>) -> Self {
        self.defaults.machine = Some(description.into());
        self
    }

    /// Adds a label to each runner that does not have one of that name.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.defaults.labels.insert(key.into(), value.into());
        self
    }

    /// Says what answers at all addresses for which it is not said apart. Default: it is found out.
    pub fn kind(mut self, kind: EngineKind) -> Self {
        self.defaults.kind = kind;
        self
    }

    /// How long to wait between two probes of a runner, give or take a tenth. Default:
    /// [`HttpRunners::PROBE_INTERVAL`], or [`HttpRunners::CAPACITY_INTERVAL`] for one that reports capacity.
    pub fn probe_interval(mut self, interval: Duration) -> Self {
        self.defaults.probe_interval = Some(interval);
        self
    }

    /// How long all questions of one probe may take together. Default: [`EngineLink::PROBE_TIMEOUT`].
    pub fn probe_timeout(mut self, limit: Duration) -> Self {
        self.defaults.probe_timeout = Some(limit);
        self
    }

    /// How old the capacity may be that an engine reports when it is asked. Default:
    /// [`EngineLink::CAPACITY_AGE`].
    pub fn capacity_age(mut self, age: Duration) -> Self {
        self.defaults.capacity_age = Some(age);
        self
    }

    /// Sends `authorization: Bearer KEY` to each engine that does not have its own key.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.defaults.api_key = Some(key.into());
        self
    }

    /// The most runners at once; those beyond are left out until the inventory tells of them again. Default:
    /// [`HttpRunners::MAX_RUNNERS`].
    pub fn max_runners(mut self, most: usize) -> Self {
        self.policy.max_runners = most;
        self
    }

    /// How long a runner that has gone may take to finish what it has; then its connections are closed.
    /// Default: [`HttpRunners::DRAIN_TIMEOUT`].
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.policy.drain_timeout = limit;
        self
    }

    /// Whether every entry of a fixed list can be used; for those who would rather not start than start with
    /// some of them. What an inventory tells is not known beforehand, so with one it is `Ok`.
    ///
    /// # Errors
    ///
    /// The first problem.
    pub fn validate(&self) -> Result<(), InvalidRunner> {
        let Supply::Fixed(list) = &self.supply else { return Ok(()) };
        list.entries().iter().try_for_each(|entry| entry.clone()?.or(&self.defaults).validate())
    }
}

impl From<FixedList> for HttpRunners {
    fn from(list: FixedList) -> Self {
        Self::new(Supply::Fixed(list))
    }
}

#[async_trait]
impl RunnerSource for HttpRunners {
    async fn run(self: Box<Self>, registry: Arc<dyn Registry>, stop: CancellationToken) {
        let Self { supply, defaults, policy, changes } = *self;
        Supervisor::new(registry, stop, defaults, policy).run(supply, changes).await;
    }
}

#[async_trait]
impl Inventory for Supply {
    type Entry = HttpRunner;

    async fn next(&mut self) -> Option<InventoryChange<HttpRunner>> {
        match self {
            Self::Fixed(list) => list.next().await,
            Self::Other(inventory) => inventory.next().await,
        }
    }
}

impl fmt::Debug for HttpRunners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("HttpRunners");
        if let Supply::Fixed(list) = &self.supply {
            shown.field("runners", &list.len());
        }
        shown.finish_non_exhaustive()
    }
}
