//! What can be set, and where: flags before environment before file before default.

mod discovery;
mod file;
mod flags;
mod generic;
mod grpc;
mod lifecycle;
mod merge;
mod models;
mod queue;
mod request_log;
mod resilience;
mod section;
mod strategy;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::{
    Balancer, Deadlines, HealthPolicy, HedgePolicy, LifecyclePolicy, ModelId, ModelRoutes, PerModel,
    QueuePolicy, RetryPolicy,
};
use gateway_http::{GatewayBuilder, PromptHashing};
use gateway_transport_http::RunnerEntry;

use discovery::Discovery;
pub(crate) use file::ClientEntry;
use file::File;
pub(crate) use flags::Flags;
use generic::Generic;
#[allow(unused_imports, reason = "tests of the other settings do without")]
pub(crate) use grpc::{GrpcListen, GrpcSetting};
pub(crate) use request_log::RequestLogSetting;
pub(crate) use section::ConfigError;
use section::Secret;
pub(crate) use strategy::StrategySetting;

/// Where the gateway listens unless told otherwise.
pub(crate) const LISTEN: &str = "127.0.0.1:8080";
/// Where observability listens if only its host or port is set: the port that such gateways use for it.
const OBSERVABILITY: &str = "127.0.0.1:8801";
/// Connections that are open at once; more wait in the kernel's queue.
pub(crate) const MAX_CONNECTIONS: usize = 10_000;

/// Everything that was set, from wherever it came.
pub(crate) struct Settings {
    pub(crate) listen: String,
    pub(crate) observability: Option<String>,
    pub(crate) client_tokens: Vec<String>,
    pub(crate) admin_tokens: Vec<String>,
    pub(crate) runner_token: Option<String>,
    pub(crate) allow_anonymous: bool,
    pub(crate) strategy: StrategySetting,
    /// Of single models.
    pub(crate) strategy_of: BTreeMap<String, StrategySetting>,
    pub(crate) max_body_bytes: Option<usize>,
    pub(crate) max_connections: usize,
    pub(crate) deadlines: Deadlines,
    pub(crate) queue: QueuePolicy,
    pub(crate) retry: RetryPolicy,
    pub(crate) health: HealthPolicy,
    pub(crate) hedge: Option<HedgePolicy>,
    pub(crate) lifecycle: LifecyclePolicy,
    pub(crate) routes: ModelRoutes,
    pub(crate) prompts: PromptHashing,
    pub(crate) default_backend: Option<String>,
    pub(crate) sse_keepalive: Option<Duration>,
    /// `None`: requests are not kept.
    pub(crate) request_log: Option<RequestLogSetting>,
    pub(crate) generic: Generic,
    pub(crate) grpc: GrpcSetting,
    pub(crate) clients: Vec<ClientEntry>,
    pub(crate) runners: Vec<RunnerEntry>,
    /// Of runners that are not written down here. What it comes to is in [`Settings::sources`].
    discovery: Discovery,
    pub(crate) demo: bool,
}

impl Settings {
    /// Puts flags, environment and file together. `environment` looks a variable up; `text` is the
    /// file's, if there is one.
    pub(crate) fn resolve(
        flags: &Flags,
        environment: impl Fn(&str) -> Option<String>,
        text: Option<&str>,
    ) -> Result<Self, ConfigError> {
        Self::of(File::merged(flags, environment, text)?, flags)
    }

    /// The same as a file that says all of it, secrets hidden. What does not do is an error all the same.
    pub(crate) fn effective(
        flags: &Flags,
        environment: impl Fn(&str) -> Option<String>,
        text: Option<&str>,
    ) -> Result<String, ConfigError> {
        let mut file = File::merged(flags, environment, text)?;
        file.listen.get_or_insert_with(|| LISTEN.to_owned());
        let text = toml::to_string(&file).map_err(ConfigError::new)?;
        Self::of(file, flags)?;
        Ok(text)
    }

    fn of(file: File, flags: &Flags) -> Result<Self, ConfigError> {
        let plain = |secrets: Vec<Secret>| secrets.into_iter().map(|secret| secret.0).collect();
        let settings = Self {
            listen: file.listen.unwrap_or_else(|| LISTEN.to_owned()),
            observability: file.observability,
            client_tokens: plain(file.client_tokens),
            admin_tokens: plain(file.admin_tokens),
            runner_token: file.runner_token.map(|token| token.0),
            allow_anonymous: file.allow_anonymous,
            strategy: file.strategy,
            strategy_of: file.strategy_of,
            max_body_bytes: file.limits.max_body_bytes,
            max_connections: file.limits.max_connections,
            deadlines: file.limits.deadlines(),
            queue: file.queue.policy()?,
            retry: file.retry.policy()?,
            health: resilience::health(&file.breaker, &file.hold, &file.slow_start, &file.outliers)?,
            hedge: file.hedge.policy()?,
            lifecycle: file.lifecycle.policy()?,
            routes: file.models.routes()?,
            prompts: file.prompts.hashing(),
            default_backend: file.default_backend,
            sse_keepalive: file.sse_keepalive_s.unless_zero(),
            request_log: file.request_log.setting()?,
            generic: Generic { routes: file.generic, needs: file.needs, forwarded: file.forwarded },
            grpc: file.grpc.setting()?,
            clients: file.client,
            runners: file.runner,
            discovery: file.discovery,
            demo: flags.demo,
        };
        settings.check()?;
        Ok(settings)
    }

    /// What is read at the start only, by key, to find out whether it has changed. Never shown.
    #[allow(dead_code, reason = "tests of the settings alone do without")]
    pub(crate) fn fixed(&self) -> [(&'static str, String); 6] {
        [
            ("listen", self.listen.clone()),
            ("observability", self.observability.clone().unwrap_or_default()),
            ("limits.max_connections", self.max_connections.to_string()),
            ("runner_token", self.runner_token.clone().unwrap_or_default()),
            ("request_log", format!("{:?}", self.request_log)),
            // Both what is served and who is dialled.
            ("grpc", format!("{:?} {:?}", self.grpc, self.grpc.secrets())),
        ]
    }

    /// The strategy, or one for each model that has its own.
    pub(crate) fn balancer(&self) -> Result<Arc<dyn Balancer>, ConfigError> {
        let others = self.strategy.build("strategy")?;
        if self.strategy_of.is_empty() {
            return Ok(others);
        }
        let mut all = PerModel::new(others);
        for (model, strategy) in &self.strategy_of {
            let key = format!("strategy_of.{model}");
            let strategy = strategy.build(&key)?;
            let model = ModelId::new(model).map_err(|error| ConfigError::at(&key, error))?;
            all = all.model(model, strategy);
        }
        Ok(Arc::new(all))
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.max_connections == 0 {
            return Err(ConfigError::at("limits.max_connections", "it must be at least 1"));
        }
        if self.prompts.block_bytes < PromptHashing::MIN_BLOCK_BYTES {
            let least = PromptHashing::MIN_BLOCK_BYTES;
            return Err(ConfigError::at("prompts.block_bytes", format!("it must be at least {least}")));
        }
        let shortest = GatewayBuilder::MIN_SSE_KEEPALIVE;
        if self.sse_keepalive.is_some_and(|every| every < shortest) {
            let problem = format!("it must be 0, which is off, or at least {}", shortest.as_secs_f64());
            return Err(ConfigError::at("sse_keepalive_s", problem));
        }
        self.balancer()?;
        let _ = (self.listed()?, self.found()?, self.dialled()?);
        for client in &self.clients {
            client.identity()?;
        }
        let nobody = self.client_tokens.is_empty() && self.clients.is_empty();
        if self.allow_anonymous && !nobody {
            return Err(ConfigError::new(
                "allow_anonymous = true lets everybody in, yet client tokens are set: remove one of them",
            ));
        }
        if nobody && !self.allow_anonymous && !self.demo {
            return Err(ConfigError::new(
                "no client token is set, so nobody could use the gateway. Set GATEWAY_BEARER_TOKEN (or \
                 client_tokens in the file), or say allow_anonymous = true in the file to let everybody in, \
                 or try --demo",
            ));
        }
        Ok(())
    }
}
