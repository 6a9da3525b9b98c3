//! A fixed list of runners.

mod health;
mod runner;
mod watch;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gateway_core::{CancellationToken, Registry, RunnerSource};
use tokio::task::JoinSet;

use runner::Defaults;
pub use runner::{HttpRunner, InvalidRunner};

/// Runners at fixed HTTP addresses.
///
/// A runner joins when its engine has answered for the first time, or at once if its
/// [models are given](HttpRunners::models). Every 10 s its engine is asked how it is; after three failures
/// in a row it is unhealthy, after one good answer it is well again. An entry that cannot be used is
/// logged as an error and left out; [`HttpRunners::validate`] finds it beforehand.
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
    entries: Vec<Result<HttpRunner, InvalidRunner>>,
    defaults: Defaults,
}

impl HttpRunners {
    /// Runners of which only the addresses are known.
    pub fn fixed<A: AsRef<str>>(addresses: impl IntoIterator<Item = A>) -> Self {
        let entries = addresses.into_iter().map(|address| Ok(HttpRunner::new(address)?)).collect();
        Self { entries, defaults: Defaults::default() }
    }

    /// Runners of which more is known.
    pub fn list(runners: impl IntoIterator<Item = HttpRunner>) -> Self {
        Self { entries: runners.into_iter().map(Ok).collect(), defaults: Defaults::default() }
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

    /// How long to wait between two probes of a runner, give or take a tenth. Default: 10 s.
    pub fn probe_interval(mut self, interval: Duration) -> Self {
        self.defaults.probe_interval = Some(interval);
        self
    }

    /// Sends `authorization: Bearer KEY` to each engine that does not have its own key.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.defaults.api_key = Some(key.into());
        self
    }

    /// Whether every entry can be used; for those who would rather not start than start with some of them.
    ///
    /// # Errors
    ///
    /// The first problem.
    pub fn validate(&self) -> Result<(), InvalidRunner> {
        self.entries.iter().try_for_each(|entry| entry.clone()?.or(&self.defaults).validate())
    }
}

#[async_trait]
impl RunnerSource for HttpRunners {
    async fn run(self: Box<Self>, registry: Arc<dyn Registry>, stop: CancellationToken) {
        let mut watches = JoinSet::new();
        for entry in self.entries {
            match entry.and_then(|entry| entry.or(&self.defaults).into_parts()) {
                Ok(parts) => {
                    watches.spawn(watch::watch(parts, registry.clone(), stop.clone()));
                }
                Err(error) => tracing::error!(%error, "a runner of the list is left out"),
            }
        }
        while let Some(ended) = watches.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "the watch over a runner broke off");
            }
        }
        // An empty list stays until it is told to stop, like any other source.
        stop.cancelled().await;
    }
}

impl fmt::Debug for HttpRunners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRunners").field("runners", &self.entries.len()).finish_non_exhaustive()
    }
}
