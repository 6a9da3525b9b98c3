//! Flags and environment, put into what the file says.

use gateway_transport_http::{EngineKind, RunnerEntry};

use super::discovery::Mode;
use super::file::File;
use super::generic::GenericEntry;
use super::grpc::GrpcEntry;
use super::section::{ConfigError, Seconds, Secret};
use super::{Flags, LISTEN, OBSERVABILITY};

impl File {
    /// What the file says, with what the environment says in its place, and the flags in the place of both.
    pub(super) fn merged(
        flags: &Flags,
        environment: impl Fn(&str) -> Option<String>,
        text: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let var = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        let mut file: Self = match text {
            Some(text) => toml::from_str(text).map_err(|error| {
                // Not as the library says it: it quotes the line, and there may be a token on it.
                let before = error.span().and_then(|at| text.get(..at.start)).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                ConfigError::new(format!("line {line} of the settings: {}", unquoted(error.message())))
            })?,
            None => Self::default(),
        };
        file.addresses(flags, &var)?;
        file.grpc(flags, &var);
        file.tokens(&var);
        file.runners(&var)?;
        file.default_backend = var("DEFAULT_BACKEND").or(file.default_backend);
        if let Some(path) = var("OPENAPI_SPEC_PATH") {
            file.generic.push(GenericEntry::openapi(path));
        }
        if let Some(path) = var("DATABASE_PATH") {
            file.request_log.database = Some(path.into());
        }
        Ok(file)
    }

    fn addresses(&mut self, flags: &Flags, var: &impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        self.listen = Some(match &flags.listen {
            Some(listen) => listen.clone(),
            None => {
                let base = self.listen.as_deref().unwrap_or(LISTEN);
                address("listen", base, var("GATEWAY_HOST"), var("GATEWAY_PORT"))?
            }
        });
        let (host, port) = (var("OBSERVABILITY_HOST"), var("OBSERVABILITY_PORT"));
        if self.observability.is_some() || host.is_some() || port.is_some() {
            let base = self.observability.as_deref().unwrap_or(OBSERVABILITY);
            self.observability = Some(address("observability", base, host, port)?);
        }
        Ok(())
    }

    fn grpc(&mut self, flags: &Flags, var: &impl Fn(&str) -> Option<String>) {
        let grpc = &mut self.grpc;
        grpc.listen = flags.grpc_listen.clone().or_else(|| var("GATEWAY_GRPC_LISTEN")).or(grpc.listen.take());
        let sidecars = var("SIDECAR_GRPC_ADDR").map(|csv| list(&csv)).unwrap_or_default();
        let coordinators = var("COORDINATOR_UDS_PATH").map(|csv| list(&csv)).unwrap_or_default();
        let coordinators = coordinators.into_iter().map(|path| match path.starts_with(['/', '.']) {
            true => format!("unix:{path}"),
            false => path,
        });
        for address in sidecars.into_iter().chain(coordinators) {
            // What the file says of the same worker is more than its address.
            if grpc.runner.iter().all(|runner| runner.address != address) {
                grpc.runner.push(GrpcEntry::at(address));
            }
        }
    }

    fn tokens(&mut self, var: &impl Fn(&str) -> Option<String>) {
        let more = var("GATEWAY_BEARER_TOKENS").map(|csv| list(&csv));
        let tokens: Vec<_> =
            var("GATEWAY_BEARER_TOKEN").into_iter().chain(more.into_iter().flatten()).collect();
        if !tokens.is_empty() {
            self.client_tokens = tokens.into_iter().map(Secret).collect();
        }
        if let Some(token) = var("GATEWAY_ADMIN_TOKEN") {
            self.admin_tokens = vec![Secret(token)];
        }
        if let Some(token) = var("GATEWAY_RUNNER_TOKEN") {
            self.runner_token = Some(Secret(token));
        }
    }

    fn runners(&mut self, var: &impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        let interval = seconds("CAPACITY_UPDATE_INTERVAL", var)?;
        let timeout = seconds("CAPACITY_TIMEOUT", var)?;
        if let Some(urls) = var("STATIC_BACKENDS").map(|csv| list(&csv)) {
            self.runner.retain(|runner| !urls.contains(&runner.url));
            self.runner.extend(urls.iter().map(|url| RunnerEntry::at(url.trim_end_matches('/'))));
        }
        if let Some(url) = var("OLLAMA_BASE_URL") {
            self.runner.push(RunnerEntry {
                id: Some("ollama".to_owned()),
                kind: EngineKind::Ollama,
                ..RunnerEntry::at(url.trim_end_matches('/'))
            });
        }
        for runner in &mut self.runner {
            runner.probe_interval = runner.probe_interval.or(interval.map(|time| time.0));
            runner.probe_timeout = runner.probe_timeout.or(timeout.map(|time| time.0));
        }
        let found = &mut self.discovery;
        if let Some(mode) = var("DISCOVERY_MODE") {
            found.mode = Mode::named(&mode)?;
        }
        // The documents set these in every case; they have an effect in a cluster only.
        if found.mode == Mode::Kubernetes {
            found.namespace = var("K8S_NAMESPACE").unwrap_or(std::mem::take(&mut found.namespace));
            found.selector = var("K8S_LABEL_SELECTOR").unwrap_or(std::mem::take(&mut found.selector));
        }
        if found.mode != Mode::Static {
            found.probe_interval_s = interval.unwrap_or(found.probe_interval_s);
            found.probe_timeout_s = timeout.unwrap_or(found.probe_timeout_s);
        }
        Ok(())
    }
}

/// Without a value that is of the wrong type: it may be a token that was written where it does not belong.
fn unquoted(message: &str) -> String {
    if !message.starts_with("invalid") {
        return message.to_owned();
    }
    let parts = message.split('"').enumerate();
    parts.map(|(number, part)| if number % 2 == 0 { part } else { "…" }).collect()
}

/// A variable that is a number of seconds.
fn seconds(name: &str, var: &impl Fn(&str) -> Option<String>) -> Result<Option<Seconds>, ConfigError> {
    let Some(text) = var(name) else { return Ok(None) };
    let time = text.trim().parse().ok().and_then(|time| std::time::Duration::try_from_secs_f64(time).ok());
    match time.filter(|time| !time.is_zero()) {
        Some(time) => Ok(Some(Seconds(time))),
        None => Err(ConfigError::at(name, format!("it must be a number of seconds above 0, not `{text}`"))),
    }
}

fn list(csv: &str) -> Vec<String> {
    csv.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// `base` with its halves replaced by what is set.
fn address(key: &str, base: &str, host: Option<String>, port: Option<String>) -> Result<String, ConfigError> {
    let parts = base.rsplit_once(':');
    let (base_host, base_port) =
        parts.ok_or_else(|| ConfigError::new(format!("{key} must be host:port, not `{base}`")))?;
    let host = host.map(|host| if host.contains(':') { format!("[{host}]") } else { host });
    let host = host.as_deref().unwrap_or(base_host);
    let port = port.as_deref().unwrap_or(base_port);
    if port.parse::<u16>().is_err() {
        return Err(ConfigError::new(format!(
            "the port of {key} must be a number up to 65535, not `{port}`"
        )));
    }
    Ok(format!("{host}:{port}"))
}
