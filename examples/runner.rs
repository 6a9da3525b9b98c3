//! The agent in front of an inference engine: dials in to one or several gateways and serves what they
//! send from the engine's own OpenAI-compatible API.
//!
//! ```sh
//! GATEWAY_RUNNER_TOKEN=… cargo run --release --example runner -- \
//!     --gateway ws://gateway.example:8080/ws/runners --upstream http://127.0.0.1:8000 --id gpu-1
//! ```
//!
//! A gateway is dialled over WebSocket (`ws://…`) or gRPC (`grpc://host:port`, `unix:PATH`); the runner may hold some
//! of either.
//!
//! The engine's models, slots and load are asked from the engine itself (llama.cpp, Ollama, vLLM, or
//! anything with `/v1/models`). SIGTERM and SIGINT drain: the gateways send nothing new, what is under way
//! may end.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use gateway_core::{BoxError, CancellationToken, RunnerId, RunnerSpec};
use gateway_transport_grpc::dial_in::agent::Grpc;
use gateway_transport_http::{EngineLink, HttpLink};
use gateway_transport_ws::agent::Agent;
use tokio::signal::unix::{SignalKind, signal};

/// How long requests under way may take to end after the first signal.
const DRAIN: Duration = Duration::from_secs(30);

/// Dials in to gateways and serves what they send from an OpenAI-compatible engine.
#[derive(Parser, Debug)]
struct Flags {
    /// A gateway, such as ws://gateway:8080/ws/runners or grpc://gateway:50050; may be given several times
    #[arg(long, required = true, value_name = "URL")]
    gateway: Vec<String>,
    /// The runner token of the gateways
    #[arg(long, env = "GATEWAY_RUNNER_TOKEN", hide_env_values = true, default_value = "")]
    token: String,
    /// The engine
    #[arg(long, value_name = "URL")]
    upstream: String,
    /// This runner's stable id
    #[arg(long)]
    id: RunnerIdFlag,
    /// A name for people [default: the id]
    #[arg(long)]
    name: Option<String>,
    /// What kind of machine it is, such as gpu or cpu
    #[arg(long)]
    machine: Option<String>,
    /// The most requests at once [default: what the engine says]
    #[arg(long)]
    slots: Option<u32>,
    /// Be dialled back at this port of this machine, which must be the engine's, instead of serving
    /// through the connection to the gateway
    #[arg(long, value_name = "PORT")]
    dial_back_port: Option<u16>,
}

#[derive(Debug, Clone)]
struct RunnerIdFlag(RunnerId);

impl std::str::FromStr for RunnerIdFlag {
    type Err = gateway_core::InvalidName;
    fn from_str(id: &str) -> Result<Self, Self::Err> {
        RunnerId::new(id).map(Self)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    match run(Flags::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("runner: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: Flags) -> Result<(), BoxError> {
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signals(stop.clone())?);

    let engine = EngineLink::new(HttpLink::new(&flags.upstream)?);
    let mut spec = RunnerSpec::new(flags.id.0);
    if let Some(name) = flags.name {
        spec = spec.name(name);
    }
    if let Some(machine) = flags.machine {
        spec = spec.machine(machine);
    }
    let slots = match flags.slots {
        Some(slots) => Some(slots),
        None => engine.slots().await,
    };
    match slots {
        Some(slots) => spec = spec.slots(slots),
        None => tracing::warn!("the engine does not say how many requests it takes at once; set --slots"),
    }
    let mut agent = Agent::builder()
        .transport(Grpc)
        .token(flags.token)
        .spec(spec)
        .engine(Arc::new(engine))
        .drain_timeout(DRAIN);
    for gateway in flags.gateway {
        agent = agent.gateway(gateway);
    }
    if let Some(port) = flags.dial_back_port {
        agent = agent.tunnel(false).http_port(port);
    }
    agent.build()?.run(stop).await;
    Ok(())
}

/// Cancels `stop` at the first signal and ends the process at the second.
fn stop_on_signals(stop: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let mut next = async || tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} };
        next().await;
        tracing::info!("draining; a second signal ends at once");
        stop.cancel();
        next().await;
        std::process::exit(130);
    })
}
