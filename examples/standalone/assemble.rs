//! From settings to a gateway, and from other settings to the same one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use gateway_core::{Balancer, BoxError, InMemoryRegistry, Registry};
#[cfg(feature = "sqlite")]
use gateway_http::SqliteLog;
use gateway_http::{BearerTokens, Gateway, GatewayBuilder, RequestSink};
use gateway_transport_grpc::dial_in::{DialInService, GrpcDialIn};
use gateway_transport_grpc::proto::descriptors;
use gateway_transport_grpc::{GrpcServer, GrpcServerError};
use gateway_transport_http::{HttpRunners, HttpRunnersHandle};
use gateway_transport_ws::WsRunners;

use crate::config::{RequestLogSetting, Settings, StrategySetting};

/// A gateway, and its registry to look into.
pub(crate) struct Assembled {
    pub(crate) gateway: Gateway,
    pub(crate) registry: Arc<dyn Registry>,
    /// `None` if gRPC is not served.
    pub(crate) grpc: Option<GrpcServer>,
    listed: HttpRunnersHandle,
    found: HttpRunnersHandle,
    strategy: Mutex<Strategy>,
}

/// A strategy and what it was built from: it keeps what it knows as long as that is the same.
struct Strategy {
    of: (StrategySetting, BTreeMap<String, StrategySetting>),
    balancer: Arc<dyn Balancer>,
}

impl Strategy {
    fn new(settings: &Settings) -> Result<Self, BoxError> {
        let of = (settings.strategy.clone(), settings.strategy_of.clone());
        Ok(Self { of, balancer: settings.balancer()? })
    }
}

/// Builds what the settings say.
///
/// # Errors
/// An address, id or token is not valid, or the request log cannot be opened; the message names it.
pub(crate) fn assemble(settings: &Settings) -> Result<Assembled, BoxError> {
    let registry: Arc<dyn Registry> = Arc::new(InMemoryRegistry::new());
    let strategy = Strategy::new(settings)?;
    let (listed, runners) = HttpRunners::handle();
    let (found, others) = HttpRunners::handle();
    listed.replace(settings.listed()?);
    found.replace(settings.found()?);
    let mut builder = configure(settings, strategy.balancer.clone())?;
    builder = builder.registry(registry.clone()).runners(runners).runners(others);
    if let Some(log) = &settings.request_log {
        builder = builder.request_sink(request_log(log)?);
    }
    if let Some(token) = &settings.runner_token {
        builder = builder.runners(WsRunners::builder().auth_token(token).build());
    }
    let mut dial_in = None;
    if let Some(token) = settings.runner_token.as_ref().filter(|_| settings.grpc.listen.is_some()) {
        let runners = GrpcDialIn::builder().auth_token(token).build();
        dial_in = Some(runners.service());
        builder = builder.runners(runners);
    }
    if let Some(workers) = settings.dialled()? {
        builder = builder.runners(workers);
    }
    let gateway = builder.build()?;
    let grpc = grpc(settings, &gateway, &registry, dial_in)?;
    Ok(Assembled { gateway, registry, grpc, listed, found, strategy: Mutex::new(strategy) })
}

impl Assembled {
    /// Goes by other settings from now on: runners, strategies, limits, tokens and whatever else does not need a socket
    /// or a file to be opened. Nothing under way is dropped.
    ///
    /// # Errors
    /// As [`assemble`]; then all is as it was.
    pub(crate) fn change(&self, settings: &Settings) -> Result<(), BoxError> {
        let (listed, found, next) = (settings.listed()?, settings.found()?, Strategy::new(settings)?);
        let mut strategy = self.strategy.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = strategy.of == next.of;
        let balancer = if is_same { &strategy.balancer } else { &next.balancer };
        self.gateway.reconfigure(configure(settings, balancer.clone())?)?;
        if !is_same {
            *strategy = next;
        }
        self.listed.replace(listed);
        self.found.replace(found);
        Ok(())
    }
}

/// What of the settings may change while the gateway runs, but for the runners.
fn configure(settings: &Settings, balancer: Arc<dyn Balancer>) -> Result<GatewayBuilder, BoxError> {
    let mut builder = Gateway::builder()
        .balancer(balancer)
        .deadlines(settings.deadlines)
        .queue(settings.queue)
        .retry(settings.retry)
        .health(settings.health)
        .lifecycle(settings.lifecycle.clone())
        .routes(settings.routes.clone())
        .prompt_hashing(settings.prompts);
    if let Some(hedge) = settings.hedge {
        builder = builder.hedge(hedge);
    }
    if let Some(every) = settings.sse_keepalive {
        builder = builder.sse_keepalive(every);
    }
    if let Some(most) = settings.max_body_bytes {
        builder = builder.max_body_bytes(most);
    }
    if let Some(runner) = &settings.default_backend {
        builder = builder.default_backend(runner.clone());
    }
    builder = settings.generic.add_to(builder)?;
    builder = match clients(settings)? {
        tokens if tokens.is_empty() => builder.allow_anonymous_clients(),
        tokens => builder.client_authenticator(tokens),
    };
    if !settings.admin_tokens.is_empty() {
        builder = builder.admin_tokens(settings.admin_tokens.iter().map(String::as_str));
    }
    Ok(builder)
}

/// The same gateway for those who speak gRPC, and where runners dial in.
fn grpc(
    settings: &Settings,
    gateway: &Gateway,
    registry: &Arc<dyn Registry>,
    dial_in: Option<DialInService>,
) -> Result<Option<GrpcServer>, GrpcServerError> {
    let grpc = &settings.grpc;
    if grpc.listen.is_none() {
        return Ok(None);
    }
    let mut server = GrpcServer::builder(gateway.clone())
        .registry(registry.clone())
        .prompt_as(grpc.prompt_as)
        .reflection(grpc.reflection)
        .max_message_bytes(grpc.max_message_bytes);
    if let Some(dial_in) = dial_in {
        server = server.service(dial_in, descriptors::RUNNER_GATEWAY);
    }
    server.build().map(Some)
}

#[cfg(feature = "sqlite")]
fn request_log(setting: &RequestLogSetting) -> Result<Arc<dyn RequestSink>, BoxError> {
    let log = SqliteLog::builder(&setting.database);
    let log = log.max_age(setting.max_age).max_bytes(setting.max_bytes).queue(setting.queue).open();
    Ok(Arc::new(log.map_err(|error| format!("request_log.database: {error}"))?))
}

#[cfg(not(feature = "sqlite"))]
fn request_log(_: &RequestLogSetting) -> Result<Arc<dyn RequestSink>, BoxError> {
    Err("request_log.database: this program was built without the feature `sqlite`: build it with \
         `--features sqlite`"
        .into())
}

fn clients(settings: &Settings) -> Result<BearerTokens, BoxError> {
    let invalid = |error| format!("a client token is invalid: {error}");
    let tokens = BearerTokens::new(&settings.client_tokens).map_err(invalid)?;
    settings.clients.iter().try_fold(tokens, |tokens, client| {
        Ok(tokens.with_identity(client.identity()?, &client.token.0).map_err(invalid)?)
    })
}
