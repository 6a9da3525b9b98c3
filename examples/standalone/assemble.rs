//! From settings to a gateway.

use std::sync::Arc;

use gateway_core::{BoxError, InMemoryRegistry, Registry};
#[cfg(feature = "sqlite")]
use gateway_http::SqliteLog;
use gateway_http::{BearerTokens, Gateway, RequestSink};
use gateway_transport_ws::WsRunners;

use crate::config::{RequestLogSetting, Settings};

/// A gateway, and its registry to look into.
pub(crate) struct Assembled {
    pub(crate) gateway: Gateway,
    pub(crate) registry: Arc<dyn Registry>,
}

/// Builds what the settings say.
///
/// # Errors
/// An address, id or token is not valid, or the request log cannot be opened; the message names it.
pub(crate) fn assemble(settings: &Settings) -> Result<Assembled, BoxError> {
    let registry: Arc<dyn Registry> = Arc::new(InMemoryRegistry::new());
    let builder = Gateway::builder().registry(registry.clone());
    let mut builder = builder
        .balancer(settings.balancer()?)
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
    if let Some(log) = &settings.request_log {
        builder = builder.request_sink(request_log(log)?);
    }
    builder = settings.generic.add_to(builder)?;
    builder = match clients(settings)? {
        tokens if tokens.is_empty() => builder.allow_anonymous_clients(),
        tokens => builder.client_authenticator(tokens),
    };
    if !settings.admin_tokens.is_empty() {
        builder = builder.admin_tokens(settings.admin_tokens.iter().map(String::as_str));
    }
    if let Some(token) = &settings.runner_token {
        builder = builder.runners(WsRunners::builder().auth_token(token).build());
    }
    for source in settings.sources()? {
        builder = builder.runners(source);
    }
    Ok(Assembled { gateway: builder.build()?, registry })
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
        Ok(tokens.with_identity(client.identity()?, &client.token).map_err(invalid)?)
    })
}
