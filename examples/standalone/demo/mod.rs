//! Two runners in this process that dial in through the tunnel, as runners elsewhere would.

pub(crate) mod answer;
pub(crate) mod engine;
pub(crate) mod ngram;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::{BoxError, FleetEvent, Registry, RunnerId, RunnerSpec};
use gateway_transport_ws::agent::Agent;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use engine::{DemoEngine, MODEL};
use ngram::NGram;

const TEXT: &str = include_str!("text.txt");
const RUNNERS: [&str; 2] = ["demo-1", "demo-2"];
/// Requests that each of them takes at once.
const SLOTS: u32 = 64;

/// The tokens of a demo.
pub(crate) struct Tokens<'a> {
    /// For clients; none if anybody may come.
    pub(crate) client: Option<&'a str>,
    /// For `/admin`.
    pub(crate) admin: Option<&'a str>,
    /// For runners.
    pub(crate) runner: &'a str,
}

/// A token that nobody can guess.
///
/// # Errors
/// The system gives no random bytes.
pub(crate) fn token(prefix: &str) -> Result<String, BoxError> {
    let mut bytes = [0; 16];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{prefix}-{digits}"))
}

/// Starts the runners; they end with `stop`.
///
/// # Errors
/// An agent could not be built.
pub(crate) fn start(
    gateway: SocketAddr,
    runner_token: &str,
    stop: &CancellationToken,
) -> Result<JoinSet<()>, BoxError> {
    let model = Arc::new(NGram::learn(TEXT));
    let mut agents = JoinSet::new();
    for id in RUNNERS {
        let agent = Agent::builder()
            .gateway(format!("ws://{gateway}/ws/runners"))
            .token(runner_token)
            .spec(RunnerSpec::new(RunnerId::new(id)?).slots(SLOTS).machine("cpu"))
            .engine(Arc::new(DemoEngine::new(model.clone())))
            .drain_timeout(Duration::from_secs(30))
            .build()?;
        let stop = stop.clone();
        agents.spawn(async move {
            agent.run(stop).await;
        });
    }
    Ok(agents)
}

/// Waits until both runners can serve. Cancel safe.
pub(crate) async fn ready(registry: &dyn Registry) {
    let mut events = registry.events();
    loop {
        let fleet = registry.fleet();
        if fleet.model(MODEL).is_some_and(|entry| entry.loaded().len() == RUNNERS.len()) {
            return;
        }
        let next: Option<FleetEvent> = events.next().await;
        if next.is_none() {
            return;
        }
    }
}

/// What to try, for a person at a terminal.
pub(crate) fn invitation(address: SocketAddr, tokens: &Tokens<'_>) -> String {
    let base = format!("http://{address}");
    let header = tokens.client.map_or(String::new(), |token| format!(" -H 'authorization: Bearer {token}'"));
    let body = format!(
        r#"{{"model":"{MODEL}","stream":true,"messages":[{{"role":"user","content":"Tell me a story about Alice"}}]}}"#
    );
    let client = tokens.client.unwrap_or("none needed");
    let admin = tokens.admin.unwrap_or("not set");
    format!(
        "\nTwo demo runners are in. Try it:\n\n  \
         curl -N {base}/v1/chat/completions{header} -H 'content-type: application/json' -d '{body}'\n\n\
         client token  {client}\nadmin token   {admin}\nrunner token  {runner}\n\
         address       {base}/v1\n",
        runner = tokens.runner,
    )
}
