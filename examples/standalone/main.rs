//! The inference gateway as a program of its own.
//!
//! ```sh
//! cargo run --release --example standalone -- --demo
//! ```
//!
//! Settings come from flags, else from the environment, else from the TOML file of `--config`, else they
//! have their default. `--help` lists flags and variables; `gateway.toml` beside this file has every key.
//! When the file changes, or at SIGHUP, it is read again, and runners, strategies, limits and tokens change while
//! nothing is dropped. SIGTERM and SIGINT drain: nothing new is taken, what is under way may end; a second signal ends at
//! once.

mod assemble;
mod config;
mod demo;
mod log;
#[cfg(not(target_env = "msvc"))]
mod memory;
mod reload;
mod server;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use gateway_core::BoxError;
use tokio_util::sync::CancellationToken;

use assemble::{Assembled, assemble};
use config::{Flags, GrpcListen, Settings};
use server::Speaks;

/// How long requests under way may take to end after the first signal.
const DRAIN: Duration = Duration::from_secs(30);
/// How long connections have beyond that to tell their clients that an answer was cut.
const LAST_WORDS: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let flags = Flags::parse();
    let _flush_at_the_end = match log::to_stderr() {
        Ok(flush) => flush,
        Err(error) => {
            eprintln!("standalone: cannot log: {error}");
            return ExitCode::FAILURE;
        }
    };
    match start(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("standalone: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(flags: &Flags) -> Result<(), BoxError> {
    let text = match &flags.config {
        Some(path) => {
            let explain = |error| format!("cannot read {}: {error}", path.display());
            Some(std::fs::read_to_string(path).map_err(explain)?)
        }
        None => None,
    };
    let environment = |name: &str| std::env::var(name).ok();
    if flags.check_config {
        print!("{}", Settings::effective(flags, environment, text.as_deref())?);
        return Ok(());
    }
    let settings = Settings::resolve(flags, environment, text.as_deref())?;
    let mut runtime = match flags.workers {
        Some(1) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if let Some(workers) = flags.workers {
        runtime.worker_threads(usize::from(workers));
    }
    let runtime = runtime.enable_all().build()?;
    runtime.block_on(run(settings, flags, text))
}

/// Where gRPC alone is served.
enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(server::UnixSocket),
}

async fn run(mut settings: Settings, flags: &Flags, text: Option<String>) -> Result<(), BoxError> {
    let stop = CancellationToken::new();
    tokio::spawn(server::stop_on_signals(stop.clone())?);
    if settings.demo {
        for (tokens, prefix) in [(&mut settings.client_tokens, "demo"), (&mut settings.admin_tokens, "admin")]
        {
            if tokens.is_empty() && !(prefix == "demo" && settings.allow_anonymous) {
                tokens.push(demo::token(prefix)?);
            }
        }
        if settings.runner_token.is_none() {
            settings.runner_token = Some(demo::token("runner")?);
        }
    }
    let listener = server::listen(&settings.listen).await?;
    let address = listener.local_addr()?;
    let observability = match &settings.observability {
        Some(address) => Some(server::listen(address).await?),
        None => None,
    };
    let assembled = assemble(&settings)?;
    let Assembled { gateway, registry, grpc, .. } = &assembled;
    // Before anything is served: who starts with the wrong path should hear of it.
    let grpc_listener = match &settings.grpc.listen {
        Some(GrpcListen::Tcp(address)) => Some(Listener::Tcp(server::listen(address).await?)),
        Some(GrpcListen::Unix(path)) => {
            Some(Listener::Unix(server::listen_unix(path, settings.grpc.socket_mode)?))
        }
        Some(GrpcListen::WithHttp) | None => None,
    };
    // The tokens of a demo are nowhere to be read again.
    let reload = if settings.demo { None } else { Some(reload::Reload::new(flags, text)?) };
    tracing::info!(%address, "listening");
    match &grpc_listener {
        Some(Listener::Tcp(listener)) => tracing::info!(address = %listener.local_addr()?, "gRPC listening"),
        Some(Listener::Unix(socket)) => tracing::info!(address = %socket, "gRPC listening"),
        None => {}
    }

    let mut observer = tokio::task::JoinSet::new();
    if let Some(listener) = observability {
        tracing::info!(address = %listener.local_addr()?, "observability listening");
        // Answers to the end of the drain, so that it can be watched.
        let (service, never) = (gateway.observability(), CancellationToken::new());
        observer.spawn(server::serve(listener, service, 64, never, Duration::ZERO));
    }
    let (most, patience) = (settings.max_connections, DRAIN + LAST_WORDS);
    let server = async {
        match grpc {
            Some(grpc) if settings.grpc.listen == Some(GrpcListen::WithHttp) => {
                let both = grpc.beside(gateway.clone());
                server::serve_as(listener, Speaks::Both, both, most, stop.clone(), patience).await;
            }
            _ => server::serve(listener, gateway.clone(), most, stop.clone(), patience).await,
        }
    };
    let grpc_server = async {
        let (Some(listener), Some(grpc)) = (grpc_listener, grpc.clone()) else { return };
        let stop = stop.clone();
        match listener {
            Listener::Tcp(listener) => {
                server::serve_as(listener, Speaks::Http2, grpc, most, stop, patience).await;
            }
            Listener::Unix(listener) => {
                server::serve_as(listener, Speaks::Http2, grpc, most, stop, patience).await;
            }
        }
    };
    let drain = async {
        stop.cancelled().await;
        if let Some(grpc) = grpc {
            grpc.close();
        }
        gateway.shutdown(DRAIN).await
    };
    let demo = async {
        let Some(runner) = settings.runner_token.as_deref().filter(|_| settings.demo) else { return Ok(()) };
        let mut agents = demo::start(address, runner, &stop)?;
        let tokens = demo::Tokens {
            client: settings.client_tokens.first().map(String::as_str),
            admin: settings.admin_tokens.first().map(String::as_str),
            runner,
        };
        if stop.run_until_cancelled(demo::ready(&**registry)).await.is_some() {
            println!("{}", demo::invitation(address, &tokens));
        }
        while agents.join_next().await.is_some() {}
        Ok::<(), BoxError>(())
    };
    let changes = async {
        if let Some(reload) = reload {
            reload.run(&settings, &assembled, &stop).await;
        }
    };
    let ((), (), drained, demo, ()) = tokio::join!(server, grpc_server, drain, demo, changes);
    // What was cut has told its end to the request log only now.
    gateway.shutdown(Duration::ZERO).await;
    tracing::info!(?drained, "ended");
    demo
}
