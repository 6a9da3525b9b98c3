//! From settings to a gateway.

use std::sync::Arc;

use gateway_core::{BestFit, BoxError, InMemoryRegistry, LeastLoaded, Registry, RoundRobin};
use gateway_http::Gateway;
use gateway_transport_http::{HttpRunner, HttpRunners};
use gateway_transport_ws::WsRunners;

use crate::config::{RunnerEntry, Settings, Strategy};

/// A gateway, and its registry to look into.
pub(crate) struct Assembled {
    pub(crate) gateway: Gateway,
    pub(crate) registry: Arc<dyn Registry>,
}

/// Builds what the settings say.
///
/// # Errors
/// An address, id or token is not valid; the message names it.
pub(crate) fn assemble(settings: &Settings) -> Result<Assembled, BoxError> {
    let registry: Arc<dyn Registry> = Arc::new(InMemoryRegistry::new());
    let builder = Gateway::builder().registry(registry.clone());
    let builder = match settings.strategy {
        Strategy::LeastLoaded => builder.strategy(LeastLoaded::default()),
        Strategy::RoundRobin => builder.strategy(RoundRobin::default()),
        Strategy::BestFit => builder.strategy(BestFit),
    };
    let mut builder = builder.deadlines(settings.deadlines).retry(settings.retry);
    if let Some(most) = settings.max_body_bytes {
        builder = builder.max_body_bytes(most);
    }
    builder = match settings.client_tokens.is_empty() {
        false => builder.client_tokens(settings.client_tokens.iter().map(String::as_str)),
        true => builder.allow_anonymous_clients(),
    };
    if !settings.admin_tokens.is_empty() {
        builder = builder.admin_tokens(settings.admin_tokens.iter().map(String::as_str));
    }
    if let Some(token) = &settings.runner_token {
        builder = builder.runners(WsRunners::builder().auth_token(token).build());
    }
    if !settings.runners.is_empty() {
        let runners = settings.runners.iter().map(runner).collect::<Result<Vec<_>, _>>()?;
        let runners = HttpRunners::list(runners);
        runners.validate()?;
        builder = builder.runners(runners);
    }
    Ok(Assembled { gateway: builder.build()?, registry })
}

fn runner(entry: &RunnerEntry) -> Result<HttpRunner, BoxError> {
    let mut runner = HttpRunner::new(&entry.url)?;
    if let Some(id) = &entry.id {
        runner = runner.id(id);
    }
    if let Some(machine) = &entry.machine {
        runner = runner.machine(machine);
    }
    if let Some(slots) = entry.slots {
        runner = runner.slots(slots);
    }
    if !entry.models.is_empty() {
        runner = runner.models(entry.models.iter().map(String::as_str));
    }
    Ok(entry.labels.iter().fold(runner, |runner, (key, value)| runner.label(key, value)))
}
