//! The gateway that is measured: `standalone`'s server over a gateway with what `standalone` has on by default, on one
//! thread.

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use gateway_core::BoxError;
use gateway_http::{BearerTokens, Gateway};
use gateway_transport_http::HttpRunners;
use gateway_transport_ws::WsRunners;
use socket2::SockRef;
use stats_alloc::{INSTRUMENTED_SYSTEM, Stats};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::subject::Count;

#[path = "../../examples/standalone/log/plain.rs"]
mod plain;
#[path = "../../examples/standalone/server.rs"]
#[allow(dead_code, reason = "gRPC, Unix sockets and signals are not measured")]
mod server;

pub(crate) const CLIENT_TOKEN: &str = "budget-client";
pub(crate) const RUNNER_TOKEN: &str = "budget-runner";
/// Longer than any measurement: what comes by the clock would be counted now and not then.
pub(crate) const NEVER: Duration = Duration::from_secs(6 * 60 * 60);
/// As much as Linux grants without being set up for more.
const RECEIVE_BUFFER: usize = 200 << 10;
/// The function at whose call callgrind writes down what was counted since the last one.
pub(crate) const MARK: &str = "*budget::gateway::span_ends*";

/// What the program on the other side of stdin wants.
enum Command {
    /// A span ends.
    End,
    /// Do nothing until the other side is at the barrier too.
    Pause(Arc<Barrier>),
}

/// Serves `model` of the engine at a URL, and runners that dial in. The first line on stdout is the address. Then lines
/// on stdin are answered: at `pause` it stands still until the next line, any other ends a span, and what was counted in
/// it is told. Ends with stdin.
///
/// # Errors
/// It cannot be built, or cannot listen.
pub(crate) fn serve(engine: &str, model: &str) -> Result<(), BoxError> {
    // As `standalone` logs, but for where it goes.
    let log = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::new("info"));
    log.with_writer(std::io::sink).with_ansi(false).event_format(plain::Plain::default()).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let commands = commands();
    runtime.block_on(async {
        let dial_in = WsRunners::builder().auth_token(RUNNER_TOKEN);
        let gateway = Gateway::builder()
            .client_authenticator(BearerTokens::new([CLIENT_TOKEN])?)
            .runners(HttpRunners::fixed([engine]).models([model]).probe_interval(NEVER))
            .runners(dial_in.ping_interval(NEVER).heartbeat_timeout(NEVER).build())
            .build()?;
        let listener = server::listen("127.0.0.1:0").await?;
        // The kernel's own choice follows the clock, and with it how many pieces a large request comes in.
        SockRef::from(&listener).set_recv_buffer_size(RECEIVE_BUFFER)?;
        say(format_args!("{}", listener.local_addr()?))?;
        tokio::spawn(server::serve(listener, gateway, 10_000, CancellationToken::new(), Duration::ZERO));
        obey(commands).await
    })
}

fn commands() -> mpsc::Receiver<Command> {
    let (send, commands) = mpsc::channel(1);
    std::thread::spawn(move || {
        let (mut stdin, mut line) = (std::io::stdin().lock(), String::new());
        let (barrier, mut is_paused) = (Arc::new(Barrier::new(2)), false);
        // What this does is counted too, so it allocates nothing.
        while stdin.read_line(&mut line).is_ok_and(|read| read > 0) {
            let is_pause = line.trim() == "pause";
            line.clear();
            if std::mem::take(&mut is_paused) {
                barrier.wait();
                continue;
            }
            is_paused = is_pause;
            let command = if is_pause { Command::Pause(barrier.clone()) } else { Command::End };
            if send.blocking_send(command).is_err() {
                return;
            }
        }
    });
    commands
}

async fn obey(mut commands: mpsc::Receiver<Command>) -> Result<(), BoxError> {
    let mut before = INSTRUMENTED_SYSTEM.stats();
    while let Some(command) = commands.recv().await {
        match command {
            Command::End => {
                span_ends();
                let now = INSTRUMENTED_SYSTEM.stats();
                let Count { allocations, bytes, held } = counted(now, before);
                before = now;
                say(format_args!("{allocations} {bytes} {held}"))?;
            }
            Command::Pause(barrier) => {
                say(format_args!("paused"))?;
                // Blocks the one thread there is, which is what it is for.
                barrier.wait();
            }
        }
    }
    Ok(())
}

fn say(line: std::fmt::Arguments<'_>) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// A place for callgrind to find.
#[inline(never)]
fn span_ends() {
    black_box(());
}

fn counted(now: Stats, before: Stats) -> Count {
    let since = now - before;
    Count {
        // A growing buffer is as bad as a new one.
        allocations: (since.allocations + since.reallocations) as u64,
        bytes: since.bytes_allocated as u64,
        held: since.bytes_allocated as i64 - since.bytes_deallocated as i64,
    }
}
