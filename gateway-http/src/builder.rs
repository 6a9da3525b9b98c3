mod assembly;
mod error;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use error::BuildError;
use gateway_core::{
    Balancer, Deadlines, HealthPolicy, HedgePolicy, InMemoryRegistry, LeastLoaded, LifecyclePolicy, ModelId,
    ModelRoutes, Observer, QueuePolicy, Registry, RetryPolicy, Router, RunnerSource,
};

use crate::admission::Admission;
use crate::auth::{Access, Authenticator, BearerTokens};
use crate::generic::{Forwarding, GenericRoute};
use crate::inference::{BodyLimits, PromptHashing};
use crate::metrics::Metrics;
use crate::needs::{Need, Needs};
use crate::request_log::RequestSink;

/// Puts a [`Gateway`](crate::Gateway) together.
///
/// ```
/// use gateway_http::Gateway;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let gateway = Gateway::builder().client_tokens(["secret"]).build();
/// assert!(gateway.is_ok());
/// // Nobody said who may use it.
/// assert!(Gateway::builder().build().is_err());
/// # }
/// ```
#[must_use]
pub struct GatewayBuilder {
    registry: Arc<dyn Registry>,
    balancer: Arc<dyn Balancer>,
    router: Option<Arc<dyn Router>>,
    sources: Vec<Box<dyn RunnerSource>>,
    clients: Who,
    admins: Who,
    admission: Option<Arc<dyn Admission>>,
    limits: BodyLimits,
    prompts: PromptHashing,
    keepalive: Option<Duration>,
    deadlines: Deadlines,
    retry: RetryPolicy,
    queue: QueuePolicy,
    lifecycle: LifecyclePolicy,
    hedge: Option<HedgePolicy>,
    health: HealthPolicy,
    routes: ModelRoutes,
    observers: Vec<Arc<dyn Observer>>,
    sinks: Vec<Arc<dyn RequestSink>>,
    default_backend: Option<String>,
    generic: Vec<GenericRoute>,
    forwarding: Forwarding,
    needs: Needs,
    metrics: Arc<Metrics>,
}

/// What was said about who may use a group of routes.
#[derive(Default)]
struct Who {
    tokens: Vec<String>,
    authenticator: Option<Arc<dyn Authenticator>>,
    anonymous: bool,
}

impl Who {
    /// `None` if nothing was said.
    fn access(self, whose: &'static str) -> Result<Option<Access>, BuildError> {
        let tokens = !self.tokens.is_empty();
        if [tokens, self.authenticator.is_some(), self.anonymous].iter().filter(|said| **said).count() > 1 {
            return Err(BuildError::Contradiction { whose });
        }
        if tokens {
            let tokens = BearerTokens::new(&self.tokens).map_err(|_| BuildError::InvalidToken { whose })?;
            return Ok(Some(Access::Known(Arc::new(tokens))));
        }
        Ok(match self.authenticator {
            Some(authenticator) => Some(Access::Known(authenticator)),
            None => self.anonymous.then_some(Access::Anonymous),
        })
    }
}

impl GatewayBuilder {
    pub(crate) fn new() -> Self {
        Self {
            registry: Arc::new(InMemoryRegistry::new()),
            balancer: Arc::new(LeastLoaded::default()),
            router: None,
            sources: Vec::new(),
            clients: Who::default(),
            admins: Who::default(),
            admission: None,
            limits: BodyLimits { max_bytes: BodyLimits::MAX_BYTES, idle: BodyLimits::IDLE, total: None },
            prompts: PromptHashing::default(),
            keepalive: None,
            deadlines: Deadlines::default(),
            retry: RetryPolicy::default(),
            queue: QueuePolicy::default(),
            lifecycle: LifecyclePolicy::default(),
            hedge: None,
            health: HealthPolicy::default(),
            routes: ModelRoutes::default(),
            observers: Vec::new(),
            sinks: Vec::new(),
            default_backend: None,
            generic: Vec::new(),
            forwarding: Forwarding::default(),
            needs: Needs::default(),
            metrics: Arc::default(),
        }
    }

    /// Who of the runners that could serve a request does; [`LeastLoaded`] unless set.
    pub fn strategy(mut self, strategy: impl Balancer) -> Self {
        self.balancer = Arc::new(strategy);
        self
    }

    /// The same, for a strategy that is chosen while the program runs, as by
    /// [`Strategy::build`](gateway_core::Strategy::build).
    pub fn balancer(mut self, balancer: Arc<dyn Balancer>) -> Self {
        self.balancer = balancer;
        self
    }

    /// Who could serve a request; [`CapabilityRouter`](gateway_core::CapabilityRouter) unless set.
    pub fn router(mut self, router: impl Router) -> Self {
        self.router = Some(Arc::new(router));
        self
    }

    /// Where the runners are kept; an [`InMemoryRegistry`] of its own unless set. A shutdown takes every
    /// runner out of it.
    pub fn registry(mut self, registry: Arc<dyn Registry>) -> Self {
        self.registry = registry;
        self
    }

    /// Adds a source of runners. Its door, if it has one, is mounted at its path.
    pub fn runners(mut self, source: impl RunnerSource) -> Self {
        self.sources.push(Box::new(source));
        self
    }

    /// Adds tokens that let clients in, see [`BearerTokens`].
    pub fn client_tokens<T: Into<String>>(mut self, tokens: impl IntoIterator<Item = T>) -> Self {
        self.clients.tokens.extend(tokens.into_iter().map(Into::into));
        self
    }

    /// Adds tokens that let admins in. Without any the admin routes answer 403. Clients' tokens are no
    /// admins' tokens, nor the other way round.
    pub fn admin_tokens<T: Into<String>>(mut self, tokens: impl IntoIterator<Item = T>) -> Self {
        self.admins.tokens.extend(tokens.into_iter().map(Into::into));
        self
    }

    /// Says who clients are, instead of tokens.
    pub fn client_authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.clients.authenticator = Some(Arc::new(authenticator));
        self
    }

    /// Says who admins are, instead of tokens.
    pub fn admin_authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.admins.authenticator = Some(Arc::new(authenticator));
        self
    }

    /// Lets every client in, whoever it is.
    pub fn allow_anonymous_clients(mut self) -> Self {
        self.clients.anonymous = true;
        self
    }

    /// Lets everybody load and unload models and see all runners. For machines that nobody else reaches.
    pub fn allow_anonymous_admins(mut self) -> Self {
        self.admins.anonymous = true;
        self
    }

    /// Sets limits and quotas; nothing is limited unless set.
    pub fn admission(mut self, admission: impl Admission) -> Self {
        self.admission = Some(Arc::new(admission));
        self
    }

    /// How long things may take.
    pub fn deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// When another runner is tried.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// How many requests may wait for a slot when every runner is full, and how long;
    /// [`QueuePolicy::OFF`] refuses them at once.
    pub fn queue(mut self, queue: QueuePolicy) -> Self {
        self.queue = queue;
        self
    }

    /// When a request is sent to a second runner because the first takes long; never unless set.
    pub fn hedge(mut self, hedge: HedgePolicy) -> Self {
        self.hedge = Some(hedge);
        self
    }

    /// What decides whether a runner deserves requests: circuit breaker, holds, slow start, outliers.
    pub fn health(mut self, health: HealthPolicy) -> Self {
        self.health = health;
        self
    }

    /// Names that stand for models: aliases, classes, fallbacks. Every name stands for itself unless set.
    pub fn routes(mut self, routes: ModelRoutes) -> Self {
        self.routes = routes;
        self
    }

    /// When models are loaded and unloaded: loaded when a request asks for one that is on a runner's disk, and
    /// unloaded after [`LifecyclePolicy::keep_alive`] if that is set. [`LifecyclePolicy::off`] leaves all of
    /// that to the admins. With a keep-alive time [`build`](GatewayBuilder::build) must be called within a
    /// tokio runtime.
    pub fn lifecycle(mut self, lifecycle: LifecyclePolicy) -> Self {
        self.lifecycle = lifecycle;
        self
    }

    /// The largest body of a request, in bytes; 64 MiB unless set, which is a prompt with a few photographs
    /// in base64. A body is held in memory until its request is over, so that it can be tried elsewhere.
    pub fn max_body_bytes(mut self, max: usize) -> Self {
        self.limits.max_bytes = max;
        self
    }

    /// The longest that a request's body may stand still while it is read; 60 s unless set.
    pub fn body_timeout(mut self, idle: Duration) -> Self {
        self.limits.idle = idle;
        self
    }

    /// How prompts are cut into blocks, for strategies that look for a runner with a prompt's beginning in
    /// its cache. With any other strategy it has no effect.
    pub fn prompt_hashing(mut self, hashing: PromptHashing) -> Self {
        self.prompts = hashing;
        self
    }

    /// Begins event streams before their runner does: when a request with `stream: true` has waited for so
    /// long for its first token, the client gets 200, and then a comment (`: waiting`) each time that so much
    /// more has passed, so that nothing on the way closes the connection. At least
    /// [`GatewayBuilder::MIN_SSE_KEEPALIVE`]; off unless set.
    ///
    /// Once begun, a failure can no longer be told by its status: it comes as an error event and `[DONE]`, as
    /// when a stream breaks off, and `x-backend-used`, `x-model-used`, `x-router-reason` and `retry-after` are
    /// missing. Clients that go by status should be given a time beyond which they would not wait anyway.
    pub fn sse_keepalive(mut self, every: Duration) -> Self {
        self.keepalive = Some(every);
        self
    }

    /// The shortest time of [`GatewayBuilder::sse_keepalive`]: 100 ms. No proxy gives up sooner, and
    /// hardly a failure would be told by its status.
    pub const MIN_SSE_KEEPALIVE: Duration = Duration::from_millis(100);

    /// Adds routes besides the gateway's own: requests of any kind that go to runners as they are.
    pub fn generic(mut self, route: GenericRoute) -> Self {
        self.generic.push(route);
        self
    }

    /// What runners are told of where generic requests came from. Nobody is believed unless set.
    pub fn forwarding(mut self, forwarding: Forwarding) -> Self {
        self.forwarding = forwarding;
        self
    }

    /// What requests for a model need, by the name that is asked for. Such a request goes only to runners that
    /// report so much to be free.
    pub fn needs_of_model(mut self, model: ModelId, need: Need) -> Self {
        self.needs.of_model.insert(model, need);
        self
    }

    /// Lets clients say what their requests need: `x-gateway-cpus`, `x-gateway-gpus` and `x-gateway-memory-gb`,
    /// which go before all that is configured. Unless set these headers mean nothing.
    pub fn needs_from_headers(mut self, allowed: bool) -> Self {
        self.needs.from_headers = allowed;
        self
    }

    /// Adds the gateway's metrics to a registry of the host's. They are in
    /// [`Gateway::metrics_text`](crate::Gateway::metrics_text) in any case. Two gateways in one registry need a label each:
    /// [`sub_registry_with_label`](prometheus_client::registry::Registry::sub_registry_with_label).
    pub fn metrics_registry(self, registry: &mut prometheus_client::registry::Registry) -> Self {
        self.metrics.register(registry);
        self
    }

    /// Adds one who is told of every finished try.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers.push(observer);
        self
    }

    /// Adds one who is told of every request when it is over, such as `SqliteLog` (feature `sqlite`); at
    /// most [`GatewayBuilder::MAX_SINKS`]. Without any, requests cost nothing for it.
    pub fn request_sink(mut self, sink: Arc<dyn RequestSink>) -> Self {
        self.sinks.push(sink);
        self
    }

    /// The kind of backend, such as `ollama`, that `/v1/metadata` names as the default one as long as a runner of it is
    /// available. Unless set, the first in the alphabet that is. Requests go by the strategy all the same.
    pub fn default_backend(mut self, kind: impl Into<String>) -> Self {
        self.default_backend = Some(kind.into());
        self
    }

    /// The most request sinks: each is told on the way of the request.
    pub const MAX_SINKS: usize = 4;
}

impl fmt::Debug for GatewayBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the tokens.
        f.debug_struct("GatewayBuilder")
            .field("strategy", &self.balancer.name())
            .field("sources", &self.sources.len())
            .field("deadlines", &self.deadlines)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}
