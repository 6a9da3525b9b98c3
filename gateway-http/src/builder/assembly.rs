//! From what was said to a gateway, or to the next settings of one.

use std::sync::Arc;

use gateway_core::{CancellationToken, Dispatcher, Door, RunnerSource};
use tokio::sync::{Semaphore, broadcast};
use tokio_util::task::TaskTracker;

use super::{BuildError, GatewayBuilder};
use crate::admin::{self, CommandDone};
use crate::auth::Access;
use crate::gateway::{Gateway, Shared, Upgraded};
use crate::generic::{GenericTable, InvalidRoute, MAX_UPGRADED};
use crate::inference::{BodyLimits, PromptHashing, Reasons};
use crate::metrics::Metrics;
use crate::request_log::Sinks;
use crate::route::{Endpoint, Route};

impl GatewayBuilder {
    /// The gateway. Starts the runner sources, so it must be called within a tokio runtime if there are any.
    ///
    /// # Errors
    /// What is missing, contradicts itself or makes no sense.
    pub fn build(mut self) -> Result<Gateway, BuildError> {
        if self.sinks.len() > Self::MAX_SINKS {
            return Err(BuildError::TooManySinks);
        }
        let sources = std::mem::take(&mut self.sources);
        let stop = CancellationToken::new();
        let lasting = Lasting {
            doors: doors(&sources)?,
            upgraded: Upgraded { places: Arc::new(Semaphore::new(MAX_UPGRADED)), tasks: TaskTracker::new() },
            metrics: self.metrics.clone(),
            sinks: Sinks::new(std::mem::take(&mut self.sinks)),
            closing: stop.child_token(),
            stop,
            sources: TaskTracker::new(),
            commands: broadcast::Sender::new(admin::COMMANDS_KEPT),
            watchers: Arc::new(Semaphore::new(admin::MAX_WATCHERS)),
        };
        let registry = self.registry.clone();
        let shared = self.shared(lasting, None)?;
        if !sources.is_empty() && tokio::runtime::Handle::try_current().is_err() {
            return Err(BuildError::NoRuntime);
        }
        for source in sources {
            shared.sources.spawn(source.run(registry.clone(), shared.stop.clone()));
        }
        Ok(Gateway::new(Arc::new(shared)))
    }

    /// The same gateway by these settings.
    pub(crate) fn succeed(mut self, before: &Shared) -> Result<Shared, BuildError> {
        if !self.sources.is_empty() {
            return Err(BuildError::Lasting { what: "runner sources" });
        }
        if !self.sinks.is_empty() {
            return Err(BuildError::Lasting { what: "request sinks" });
        }
        self.registry = before.dispatcher.registry().clone();
        self.shared(Lasting::of(before), Some(&before.dispatcher))
    }

    fn shared(self, lasting: Lasting, before: Option<&Dispatcher>) -> Result<Shared, BuildError> {
        let clients = self.clients.access("client")?.ok_or(BuildError::NoClients)?;
        let admins = self.admins.access("admin")?.unwrap_or(Access::Closed);
        if self.prompts.block_bytes < PromptHashing::MIN_BLOCK_BYTES {
            return Err(BuildError::BlocksTooSmall);
        }
        if self.keepalive.is_some_and(|every| every < Self::MIN_SSE_KEEPALIVE) {
            return Err(BuildError::KeepaliveTooShort);
        }
        // Also models of single names may have a keep-alive time.
        let keeps_alive =
            self.lifecycle.keep_alive.is_some() || self.lifecycle.keep_alive_of.values().any(Option::is_some);
        let tends = self.lifecycle.enabled && keeps_alive;
        if tends && tokio::runtime::Handle::try_current().is_err() {
            return Err(BuildError::NoRuntime);
        }
        if let Some((model, _)) = self.needs.of_model.iter().find(|(_, need)| !need.is_sound()) {
            return Err(InvalidRoute::Need { whose: format!("the model `{model}`") }.into());
        }
        let generic = GenericTable::new(self.generic, self.deadlines)?;
        let Lasting { doors, upgraded, metrics, sinks, closing, stop, sources, commands, watchers } = lasting;
        let mut dispatcher = Dispatcher::builder(self.registry)
            .balancer(self.balancer)
            .observer(metrics.clone())
            .deadlines(self.deadlines)
            .retry(self.retry)
            .queue(self.queue)
            .health(self.health)
            .lifecycle(self.lifecycle)
            .routes(self.routes);
        if let Some(before) = before {
            dispatcher = dispatcher.after(before);
        }
        if let Some(hedge) = self.hedge {
            dispatcher = dispatcher.hedge(hedge);
        }
        if let Some(router) = self.router {
            dispatcher = dispatcher.router(router);
        }
        let dispatcher =
            self.observers.into_iter().fold(dispatcher, |builder, one| builder.observer(one)).build();
        let tending = stop.child_token();
        if tends {
            let (lifecycle, stop) = (dispatcher.lifecycle().clone(), tending.clone());
            sources.spawn(async move { lifecycle.tend(&stop).await });
        }
        Ok(Shared {
            clients,
            admins,
            admission: self.admission,
            prompts: Some(self.prompts).filter(|_| dispatcher.reads_prompts()),
            limits: BodyLimits { total: self.deadlines.total, ..self.limits },
            dispatcher,
            doors,
            generic,
            forwarding: self.forwarding,
            needs: self.needs,
            upgraded,
            metrics,
            sinks,
            reasons: Reasons::default(),
            keepalive: self.keepalive,
            default_backend: self.default_backend,
            patience: self.queue.patience,
            closing,
            stop,
            tending,
            sources,
            commands,
            watchers,
        })
    }
}

/// What a gateway keeps whatever its settings become.
struct Lasting {
    doors: Vec<Arc<dyn Door>>,
    upgraded: Upgraded,
    metrics: Arc<Metrics>,
    sinks: Option<Arc<Sinks>>,
    closing: CancellationToken,
    stop: CancellationToken,
    sources: TaskTracker,
    commands: broadcast::Sender<Arc<CommandDone>>,
    watchers: Arc<Semaphore>,
}

impl Lasting {
    fn of(shared: &Shared) -> Self {
        Self {
            doors: shared.doors.clone(),
            upgraded: shared.upgraded.clone(),
            metrics: shared.metrics.clone(),
            sinks: shared.sinks.clone(),
            closing: shared.closing.clone(),
            stop: shared.stop.clone(),
            sources: shared.sources.clone(),
            commands: shared.commands.clone(),
            watchers: shared.watchers.clone(),
        }
    }
}

fn doors(sources: &[Box<dyn RunnerSource>]) -> Result<Vec<Arc<dyn Door>>, BuildError> {
    let mut doors: Vec<Arc<dyn Door>> = Vec::new();
    for door in sources.iter().filter_map(|source| source.door()) {
        let path = door.path();
        if !path.starts_with('/') || Route::find(path, &doors).endpoint() != Endpoint::Unknown {
            return Err(BuildError::DoorTaken { path: path.to_owned() });
        }
        doors.push(door);
    }
    Ok(doors)
}
