//! What can be set, and where: flags before environment before file before default.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use gateway_core::{Deadlines, RetryPolicy};
use serde::Deserialize;

/// Where the gateway listens unless told otherwise.
pub(crate) const LISTEN: &str = "127.0.0.1:8080";
/// Where observability listens if only its host or port is set: the port that such gateways use for it.
const OBSERVABILITY: &str = "127.0.0.1:8801";
/// Connections that are open at once; more wait in the kernel's queue.
pub(crate) const MAX_CONNECTIONS: usize = 10_000;

/// The inference gateway as a program of its own.
///
/// Runners dial in at /ws/runners, or are named by STATIC_BACKENDS, OLLAMA_BASE_URL or the file. Clients
/// speak OpenAI's API. A setting is taken from the flag, else from the environment, else from the file,
/// else it has its default.
#[derive(Parser, Debug, Default)]
#[command(name = "standalone", after_help = ENVIRONMENT)]
pub(crate) struct Flags {
    /// Where to listen, host:port [default: 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// Settings in TOML; see the example in standalone/gateway.toml
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Start two demo runners with a small text generator, and tokens to try them with
    #[arg(long)]
    pub(crate) demo: bool,
    /// Threads that serve; 1 runs everything on one thread [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: Option<u16>,
}

const ENVIRONMENT: &str = "\
Environment:
  GATEWAY_HOST, GATEWAY_PORT   where to listen; each replaces its half of the address
  GATEWAY_BEARER_TOKEN         the token of clients
  GATEWAY_BEARER_TOKENS        several of them, separated by commas
  GATEWAY_ADMIN_TOKEN          the token for /admin and /runners
  GATEWAY_RUNNER_TOKEN         the token of runners that dial in; without it there is no /ws/runners
  STATIC_BACKENDS              runners that have an HTTP address, separated by commas
  OLLAMA_BASE_URL              an Ollama server
  OBSERVABILITY_HOST, OBSERVABILITY_PORT
                               a second listener with /metrics, /health and /readyz; only with the port set
  RUST_LOG                     what to log [default: info]";

/// The settings file. An unknown key is an error.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: Option<String>,
    observability: Option<String>,
    client_tokens: Vec<String>,
    admin_tokens: Vec<String>,
    runner_token: Option<String>,
    allow_anonymous: bool,
    strategy: Strategy,
    limits: Limits,
    runner: Vec<RunnerEntry>,
}

/// Which runner gets a request.
#[derive(Deserialize, Debug, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Strategy {
    /// The one with the smallest share of its slots in use.
    #[default]
    LeastLoaded,
    /// One after the other.
    RoundRobin,
    /// The one that offers the least beyond what is needed.
    BestFit,
}

#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default)]
struct Limits {
    max_body_bytes: Option<usize>,
    max_connections: Option<usize>,
    max_failures: Option<u32>,
    first_byte_s: Option<u64>,
    idle_s: Option<u64>,
    total_s: Option<u64>,
}

/// A runner that has an HTTP address.
#[derive(Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunnerEntry {
    /// Its address, such as `http://10.0.0.5:8000`.
    pub(crate) url: String,
    /// Its stable id.
    pub(crate) id: Option<String>,
    /// The models it serves. Left out, it is asked for them.
    #[serde(default)]
    pub(crate) models: Vec<String>,
    /// The most requests it takes at once.
    pub(crate) slots: Option<u32>,
    /// Facts that requests can ask for.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// What kind of machine it is, such as `gpu`.
    pub(crate) machine: Option<String>,
}

impl RunnerEntry {
    fn at(url: &str) -> Self {
        let url = url.trim_end_matches('/').to_owned();
        Self { url, id: None, models: vec![], slots: None, labels: BTreeMap::new(), machine: None }
    }
}

/// Everything that was set, from wherever it came.
pub(crate) struct Settings {
    pub(crate) listen: String,
    pub(crate) observability: Option<String>,
    pub(crate) client_tokens: Vec<String>,
    pub(crate) admin_tokens: Vec<String>,
    pub(crate) runner_token: Option<String>,
    pub(crate) allow_anonymous: bool,
    pub(crate) strategy: Strategy,
    pub(crate) max_body_bytes: Option<usize>,
    pub(crate) max_connections: usize,
    pub(crate) deadlines: Deadlines,
    pub(crate) retry: RetryPolicy,
    pub(crate) runners: Vec<RunnerEntry>,
    pub(crate) demo: bool,
}

/// Why the settings do not do.
#[derive(Debug)]
pub(crate) struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl Settings {
    /// Puts flags, environment and file together. `environment` looks a variable up; `text` is the
    /// file's, if there is one.
    pub(crate) fn resolve(
        flags: &Flags,
        environment: impl Fn(&str) -> Option<String>,
        text: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let var = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        let csv = |name: &str| var(name).map(|value| list(&value));
        let file: File = match text {
            Some(text) => toml::from_str(text).map_err(|error| ConfigError(error.to_string()))?,
            None => File::default(),
        };

        let listen = match &flags.listen {
            Some(listen) => listen.clone(),
            None => {
                let base = file.listen.as_deref().unwrap_or(LISTEN);
                address("listen", base, var("GATEWAY_HOST"), var("GATEWAY_PORT"))?
            }
        };
        let observability = match (&file.observability, var("OBSERVABILITY_HOST"), var("OBSERVABILITY_PORT"))
        {
            (None, None, None) => None,
            (base, host, port) => {
                let base = base.as_deref().unwrap_or(OBSERVABILITY);
                Some(address("observability", base, host, port)?)
            }
        };
        let client_tokens = match (var("GATEWAY_BEARER_TOKEN"), csv("GATEWAY_BEARER_TOKENS")) {
            (None, None) => file.client_tokens,
            (one, more) => one.into_iter().chain(more.into_iter().flatten()).collect(),
        };
        let admin_tokens = var("GATEWAY_ADMIN_TOKEN").map_or(file.admin_tokens, |token| vec![token]);
        let mut runners = file.runner;
        if let Some(urls) = csv("STATIC_BACKENDS") {
            runners.retain(|runner| !urls.contains(&runner.url));
            runners.extend(urls.iter().map(|url| RunnerEntry::at(url)));
        }
        if let Some(url) = var("OLLAMA_BASE_URL") {
            runners.push(RunnerEntry { id: Some("ollama".to_owned()), ..RunnerEntry::at(&url) });
        }
        let settings = Self {
            listen,
            observability,
            client_tokens,
            admin_tokens,
            runner_token: var("GATEWAY_RUNNER_TOKEN").or(file.runner_token),
            allow_anonymous: file.allow_anonymous,
            strategy: file.strategy,
            max_body_bytes: file.limits.max_body_bytes,
            max_connections: file.limits.max_connections.unwrap_or(MAX_CONNECTIONS),
            deadlines: file.limits.deadlines(),
            retry: RetryPolicy {
                max_failures: file.limits.max_failures.unwrap_or(RetryPolicy::MAX_FAILURES),
                ..RetryPolicy::default()
            },
            runners,
            demo: flags.demo,
        };
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.max_connections == 0 {
            return Err(ConfigError("limits.max_connections must be at least 1".to_owned()));
        }
        if self.retry.max_failures == 0 {
            return Err(ConfigError("limits.max_failures must be at least 1".to_owned()));
        }
        if self.allow_anonymous && !self.client_tokens.is_empty() {
            return Err(ConfigError(
                "allow_anonymous = true lets everybody in, yet client tokens are set: remove one of them"
                    .to_owned(),
            ));
        }
        if self.client_tokens.is_empty() && !self.allow_anonymous && !self.demo {
            return Err(ConfigError(
                "no client token is set, so nobody could use the gateway. Set GATEWAY_BEARER_TOKEN (or \
                 client_tokens in the file), or say allow_anonymous = true in the file to let everybody in, \
                 or try --demo"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

impl Limits {
    fn deadlines(&self) -> Deadlines {
        let usual = Deadlines::default();
        // 0 is how a file says "no limit".
        let limit = |seconds: Option<u64>, usual| match seconds {
            None => usual,
            Some(0) => None,
            Some(seconds) => Some(Duration::from_secs(seconds)),
        };
        Deadlines {
            first_byte: limit(self.first_byte_s, usual.first_byte),
            idle: limit(self.idle_s, usual.idle),
            total: limit(self.total_s, usual.total),
        }
    }
}

fn list(csv: &str) -> Vec<String> {
    csv.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// `base` with its halves replaced by what is set.
fn address(key: &str, base: &str, host: Option<String>, port: Option<String>) -> Result<String, ConfigError> {
    let parts = base.rsplit_once(':');
    let (base_host, base_port) =
        parts.ok_or_else(|| ConfigError(format!("{key} must be host:port, not `{base}`")))?;
    let host = host.map(|host| if host.contains(':') { format!("[{host}]") } else { host });
    let host = host.as_deref().unwrap_or(base_host);
    let port = port.as_deref().unwrap_or(base_port);
    if port.parse::<u16>().is_err() {
        return Err(ConfigError(format!("the port of {key} must be a number up to 65535, not `{port}`")));
    }
    Ok(format!("{host}:{port}"))
}
