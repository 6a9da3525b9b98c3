use std::path::PathBuf;

use clap::Parser;

/// The inference gateway as a program of its own.
///
/// Runners dial in at /ws/runners, or are named by STATIC_BACKENDS, OLLAMA_BASE_URL or the file. Clients
/// speak OpenAI's API. A setting is taken from the flag, else from the environment, else from the file,
/// else it has its default.
#[derive(Parser, Debug, Default, Clone)]
#[command(name = "standalone", after_help = ENVIRONMENT)]
pub(crate) struct Flags {
    /// Where to listen, host:port [default: 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// Where to serve gRPC: host:port, unix:PATH, or http for the port of the HTTP API [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) grpc_listen: Option<String>,
    /// Settings in TOML; see the example in standalone/gateway.toml
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the settings that come of flags, environment and file, secrets hidden, and end
    #[arg(long)]
    pub(crate) check_config: bool,
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
  GATEWAY_GRPC_LISTEN          where to serve gRPC: host:port, unix:PATH, or http for the port of the HTTP API
  GATEWAY_BEARER_TOKEN         the token of clients
  GATEWAY_BEARER_TOKENS        several of them, separated by commas
  GATEWAY_ADMIN_TOKEN          the token for /admin and /runners
  GATEWAY_RUNNER_TOKEN         the token of runners that dial in; without it there is no /ws/runners
  STATIC_BACKENDS              runners that have an HTTP address, separated by commas
  SIDECAR_GRPC_ADDR            workers that speak gRPC: host:port or unix:PATH, separated by commas
  COORDINATOR_UDS_PATH         the same; what is only a path is that of a socket
  OLLAMA_BASE_URL              an Ollama server
  DEFAULT_BACKEND              the kind of engine that /v1/metadata names as the default
  DISCOVERY_MODE               static, dns, file or kubernetes; what each needs is in the file
  K8S_NAMESPACE, K8S_LABEL_SELECTOR
                               which pods, with DISCOVERY_MODE=kubernetes
  CAPACITY_UPDATE_INTERVAL, CAPACITY_TIMEOUT
                               seconds between two probes of a runner, and for one
  OPENAPI_SPEC_PATH            a document whose operations are passed on to runners
  DATABASE_PATH                a file for the log of requests
  OBSERVABILITY_HOST, OBSERVABILITY_PORT
                               a second listener with /metrics, /health and /readyz; only with the port set
  RUST_LOG                     what to log [default: info]";
