//! Names that stand for many addresses.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use gateway_core::{Inventory, InventoryChange};
use tokio::time::{Instant, sleep_until, timeout};

use super::Each;
use crate::address::InvalidAddress;
use crate::pause::jittered;
use crate::source::HttpRunner;

/// Runners behind names of the domain name system: every address of a name is a runner, as with a
/// *headless* service of Kubernetes or the tasks of a container service.
///
/// The names are looked up every 10 s, give or take a tenth. A look-up that fails keeps what was known, since
/// the runners are most likely still there; the probes tell if not. The id of a runner is `name@ip:port`, and
/// requests to it name the host, not the address. If a name has IPv4 addresses, only those count: a
/// machine that has both kinds is one runner.
///
/// ```
/// use gateway_transport_http::{DnsNames, HttpRunners};
///
/// let names = DnsNames::new(["dns://llm.default.svc.cluster.local:8000"])?;
/// let runners = HttpRunners::from_inventory(names.each(|runner| runner.label("zone", "eu"))).slots(16);
/// # drop(runners);
/// # Ok::<(), gateway_transport_http::InvalidAddress>(())
/// ```
pub struct DnsNames {
    names: Vec<Name>,
    resolver: Arc<dyn Resolve>,
    interval: Duration,
    each: Each,
    due: Instant,
}

/// Looks names up, in place of the system, see [`DnsNames::resolver`].
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of a host, each with this port.
    ///
    /// # Errors
    ///
    /// Nobody knows now: what was known before stays.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

struct Name {
    base: HttpRunner,
    host: String,
    port: u16,
    /// `None`: not known yet.
    known: Option<Vec<SocketAddr>>,
    is_failing: bool,
}

impl DnsNames {
    /// How often names are looked up unless [set](DnsNames::interval): container platforms give their records
    /// 5 s to 30 s to live.
    pub const INTERVAL: Duration = Duration::from_secs(10);
    /// How long one look-up may take.
    pub const LIMIT: Duration = Duration::from_secs(5);

    /// Runners behind `dns://name:port`, or `http://name:port`, which is the same. A path goes in front of
    /// every request's path.
    ///
    /// # Errors
    ///
    /// If one of them is no such name.
    pub fn new<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> Result<Self, InvalidAddress> {
        let names = names.into_iter().map(|name| Name::parse(name.as_ref().trim()));
        Ok(Self {
            names: names.collect::<Result<_, _>>()?,
            resolver: Arc::new(System),
            interval: Self::INTERVAL,
            each: Box::new(|runner| runner),
            due: Instant::now(),
        })
    }

    /// How often to look the names up, give or take a tenth; not more often than every 100 ms. Default:
    /// [`DnsNames::INTERVAL`].
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(Duration::from_millis(100));
        self
    }

    /// Says more of each runner than its address.
    pub fn each(mut self, more: impl Fn(HttpRunner) -> HttpRunner + Send + 'static) -> Self {
        self.each = Box::new(more);
        self
    }

    /// Who looks names up. Default: the system.
    pub fn resolver(mut self, resolver: impl Resolve) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }

    fn runners(&self) -> Vec<HttpRunner> {
        let known = self.names.iter().flat_map(|name| {
            name.known.iter().flatten().map(|address| {
                let runner = name.base.clone().connect_to(*address);
                (self.each)(runner.id(format!("{}@{address}", name.host)))
            })
        });
        known.collect()
    }
}

#[async_trait]
impl Inventory for DnsNames {
    type Entry = HttpRunner;

    async fn next(&mut self) -> Option<InventoryChange<HttpRunner>> {
        if self.names.is_empty() {
            return None;
        }
        loop {
            sleep_until(self.due).await;
            let found = join_all(self.names.iter().map(|name| name.look(&*self.resolver))).await;
            self.due = Instant::now() + jittered(self.interval);
            let heard = self.names.iter_mut().zip(found).map(|(name, found)| name.hear(found));
            if heard.fold(false, |any, changed| any | changed) {
                return Some(InventoryChange::All(self.runners()));
            }
        }
    }
}

impl Name {
    fn parse(name: &str) -> Result<Self, InvalidAddress> {
        let base = match name.strip_prefix("dns://") {
            Some(rest) => HttpRunner::new(format!("http://{rest}"))?,
            None => HttpRunner::new(name)?,
        };
        let (host, port) = base.host_and_port();
        Ok(Self { base, host, port, known: None, is_failing: false })
    }

    async fn look(&self, resolver: &dyn Resolve) -> io::Result<Vec<SocketAddr>> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the look-up takes too long");
        let found = timeout(DnsNames::LIMIT, resolver.resolve(&self.host, self.port)).await;
        let mut found = found.map_err(late).flatten()?;
        if found.iter().any(SocketAddr::is_ipv4) {
            found.retain(SocketAddr::is_ipv4);
        }
        // Servers give them in any order, to spread the load.
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Whether that is news.
    fn hear(&mut self, found: io::Result<Vec<SocketAddr>>) -> bool {
        let (host, port) = (&self.host, self.port);
        match found {
            Ok(found) => {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!(host, port, "the name is found again");
                }
                if self.known.as_ref() == Some(&found) {
                    return false;
                }
                tracing::debug!(host, port, addresses = found.len(), "the addresses of a name have changed");
                self.known = Some(found);
                true
            }
            Err(error) => {
                // Once is enough: it may be so for days.
                if !std::mem::replace(&mut self.is_failing, true) {
                    let kept = self.known.as_ref().map_or(0, Vec::len);
                    tracing::warn!(host, port, %error, kept, "a name cannot be looked up; what was known stays");
                }
                false
            }
        }
    }
}

impl fmt::Debug for DnsNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.names.iter().map(|name| (&name.host, name.port)).collect();
        f.debug_struct("DnsNames").field("names", &names).finish_non_exhaustive()
    }
}

struct System;

#[async_trait]
impl Resolve for System {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }
}
