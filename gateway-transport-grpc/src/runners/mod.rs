//! Workers that we dial, as runners of the gateway.

mod runner;
mod tend;

use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gateway_core::{CancellationToken, Registry, RunnerSource};
use tokio::task::JoinSet;

use crate::contract::Dialect;
use crate::translate::PromptTemplate;
use runner::Defaults;
pub use runner::{GrpcRunner, InvalidGrpcRunner};
use tend::tend;

/// Workers, coordinators and sidecars that speak the AiInference contract and that we dial.
///
/// A worker joins when it has answered for the first time, or at once if its [models are
/// given](GrpcRunners::models); they are asked with `list_models` otherwise. Every 10 s it is asked how it is, every
/// second while it does not answer. After three failures in a row it is unhealthy, after one good answer it is
/// well again: a worker that was killed and started again serves again, under its old address, without anything
/// being done about it. An entry that cannot be used is logged as an error and left out;
/// [`GrpcRunners::validate`] finds it beforehand.
///
/// ```
/// use gateway_transport_grpc::GrpcRunners;
///
/// let runners = GrpcRunners::connect("unix:///run/cy_sidecar.sock");
/// assert!(runners.validate().is_ok());
///
/// let runners = GrpcRunners::fixed(["10.0.0.5:50051", "10.0.0.6:50051"]).token("s3cret").slots(16);
/// assert!(runners.validate().is_ok());
/// assert!(GrpcRunners::connect("https://10.0.0.5").validate().is_err());
/// ```
#[must_use = "a source does nothing until a gateway runs it"]
pub struct GrpcRunners {
    entries: Vec<Result<GrpcRunner, InvalidGrpcRunner>>,
    defaults: Defaults,
}

impl GrpcRunners {
    /// How often a worker is asked how it is: with three failures in a row an outage is known within half a minute
    /// at the latest.
    pub const PROBE_INTERVAL: Duration = Duration::from_secs(10);
    /// How often one is asked that did not answer, if that is sooner: it serves again soon after it is back.
    pub const RETRY_INTERVAL: Duration = Duration::from_secs(1);

    fn new(entries: impl Iterator<Item = Result<GrpcRunner, InvalidGrpcRunner>>) -> Self {
        Self { entries: entries.collect(), defaults: Defaults::default() }
    }

    /// One worker of which only the address is known: `host:port`, `http://host:port`, `unix:PATH` or
    /// `unix:///PATH`.
    pub fn connect(address: impl AsRef<str>) -> Self {
        Self::fixed([address])
    }

    /// Workers of which only the addresses are known.
    pub fn fixed<A: AsRef<str>>(addresses: impl IntoIterator<Item = A>) -> Self {
        Self::new(addresses.into_iter().map(|address| Ok(GrpcRunner::new(address)?)))
    }

    /// Workers of which more is known.
    pub fn list(runners: impl IntoIterator<Item = GrpcRunner>) -> Self {
        Self::new(runners.into_iter().map(Ok))
    }

    /// Fixes the models of all workers that do not have theirs fixed: they are not asked.
    pub fn models<M: Into<String>>(mut self, models: impl IntoIterator<Item = M>) -> Self {
        self.defaults.models = Some(models.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the most requests at once for each worker that does not have its own; 0 means unknown.
    pub fn slots(mut self, slots: u32) -> Self {
        self.defaults.slots = NonZeroU32::new(slots);
        self
    }

    /// Sets the machine's description, such as `gpu`, for each worker that does not have its own.
    pub fn machine(mut self, description: impl Into<String>) -> Self {
        self.defaults.machine = Some(description.into());
        self
    }

    /// Adds a label to each worker that does not have one of that name.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.defaults.labels.insert(key.into(), value.into());
        self
    }

    /// Sends `authorization: Bearer TOKEN` to each worker that does not have its own token.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.defaults.link.token = Some(token.into());
        self
    }

    /// How messages become a prompt, for each worker that does not have its own template. Default:
    /// [`PromptTemplate::Document`].
    pub fn template(mut self, template: PromptTemplate) -> Self {
        self.defaults.link.template = Some(template);
        self
    }

    /// The adapter for requests that do not name one, to each worker that does not have its own. Default: none.
    pub fn adapter(mut self, adapter: impl Into<String>) -> Self {
        self.defaults.link.adapter = Some(adapter.into());
        self
    }

    /// Says which dialect all workers speak for which it is not said apart. Default: it is found out.
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.defaults.link.dialect = Some(dialect);
        self
    }

    /// How long to wait between two probes of a worker, give or take a tenth. Default:
    /// [`GrpcRunners::PROBE_INTERVAL`].
    pub fn probe_interval(mut self, interval: Duration) -> Self {
        self.defaults.probe_interval = Some(interval);
        self
    }

    /// Whether every entry can be used; for those who would rather not start than start with some of them.
    ///
    /// # Errors
    ///
    /// The first problem.
    pub fn validate(&self) -> Result<(), InvalidGrpcRunner> {
        let mut ids = HashSet::new();
        self.entries.iter().try_for_each(|entry| {
            let runner = entry.clone()?.or(&self.defaults);
            runner.validate()?;
            let id = runner.runner_id().clone();
            let fresh = ids.insert(id.clone());
            if fresh { Ok(()) } else { Err(InvalidGrpcRunner::Twice { id: id.to_string() }) }
        })
    }
}

#[async_trait]
impl RunnerSource for GrpcRunners {
    async fn run(self: Box<Self>, registry: Arc<dyn Registry>, stop: CancellationToken) {
        let Self { entries, defaults } = *self;
        let mut ids = HashSet::new();
        let mut tended = JoinSet::new();
        for entry in entries {
            let parts = entry.and_then(|runner| {
                let id = runner.runner_id().clone();
                let twice = InvalidGrpcRunner::Twice { id: id.to_string() };
                if ids.insert(id) { runner.or(&defaults).into_parts() } else { Err(twice) }
            });
            match parts {
                Ok(parts) => {
                    tended.spawn(tend(parts, registry.clone(), stop.clone()));
                }
                Err(error) => tracing::error!(%error, "a worker is left out"),
            }
        }
        while let Some(ended) = tended.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "the watch over a worker broke off");
            }
        }
        stop.cancelled().await;
    }
}

impl fmt::Debug for GrpcRunners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcRunners").field("runners", &self.entries.len()).finish_non_exhaustive()
    }
}
