//! Runners that dial in to a gateway over WebSocket, many in one process.
//!
//! ```sh
//! rig_runners --gateway ws://127.0.0.1:8080 --token … --engines 9001-9002      # in front of mock engines
//! rig_runners --gateway ws://127.0.0.1:8080 --token … --idle 10000             # they do nothing but stay
//! ```
//!
//! Each is the same agent as that of the example `runner`. It ends when it is told to, without draining.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::Parser;
use gateway_core::{
    CancellationToken, Command, CommandReply, LinkDescription, LinkError, LinkRequest, LinkResponse, ModelId,
    RunnerId, RunnerLink, RunnerSpec, RunnerStatus,
};
use gateway_transport_http::{EngineKind, EngineLink, HttpLink};
use gateway_transport_ws::agent::Agent;
use tokio::task::JoinSet;

/// Runners that dial in.
#[derive(Parser, Debug)]
struct Flags {
    /// The gateway, such as ws://127.0.0.1:8080
    #[arg(long)]
    gateway: String,
    /// The gateway's token for runners
    #[arg(long)]
    token: String,
    /// Ports of engines on 127.0.0.1, one runner for each, such as 9001-9002
    #[arg(long, value_name = "FIRST-LAST", required_unless_present = "idle")]
    engines: Option<String>,
    /// So many runners without an engine instead, which only stay
    #[arg(long, default_value_t = 0, conflicts_with = "engines")]
    idle: u32,
    /// The first of them, if there are more in another process
    #[arg(long, default_value_t = 0)]
    from: u32,
    /// The most requests at once of each
    #[arg(long, default_value_t = 1024)]
    slots: u32,
    /// Be dialled back at the engine's port instead of serving through the WebSocket
    #[arg(long)]
    dial_back: bool,
    /// How many dial in per second at most
    #[arg(long, default_value_t = 1000)]
    per_second: u32,
}

/// An engine that is there and does nothing.
struct Idle(RunnerStatus);

#[async_trait]
impl RunnerLink for Idle {
    fn describe(&self) -> LinkDescription {
        LinkDescription { transport: "idle", address: None }
    }

    async fn send(&self, _: LinkRequest) -> Result<LinkResponse, LinkError> {
        Err(LinkError::not_sent("this runner only stays; ask one with an engine"))
    }

    async fn command(&self, _: Command) -> Result<CommandReply, LinkError> {
        Ok(CommandReply { result: Ok(()), status: Some(self.0.clone()) })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::parse();
    gateway_benches::wire::raise_file_limit()?;
    let pause = Duration::from_secs(1) / flags.per_second.max(1);
    let mut agents = JoinSet::new();
    let mut dial = async |id: String, port: Option<u16>| -> Result<(), Box<dyn Error>> {
        agents.spawn(agent(&flags, id, port)?.run(CancellationToken::new()));
        tokio::time::sleep(pause).await;
        Ok(())
    };
    for number in flags.from..flags.from + flags.idle {
        dial(format!("idle-{number:05}"), None).await?;
    }
    if let Some(engines) = &flags.engines {
        let (first, last) = engines.split_once('-').unwrap_or((engines, engines));
        for port in first.parse()?..=last.parse()? {
            dial(format!("engine-{port}"), Some(port)).await?;
        }
    }
    println!("all dial");
    while agents.join_next().await.is_some() {}
    Ok(())
}

fn agent(
    flags: &Flags,
    id: String,
    port: Option<u16>,
) -> Result<gateway_dial_in::agent::Agent, Box<dyn Error>> {
    let spec = RunnerSpec::new(RunnerId::new(id)?).slots(flags.slots);
    let engine: Arc<dyn RunnerLink> = match port {
        Some(port) => {
            let link = HttpLink::new(format!("http://127.0.0.1:{port}"))?;
            Arc::new(EngineLink::new(link).kind(EngineKind::Vllm))
        }
        None => Arc::new(Idle(RunnerStatus::serving([ModelId::new("mock-model")?]))),
    };
    let mut agent = Agent::builder().gateway(&flags.gateway).token(&flags.token).spec(spec).engine(engine);
    if port.is_none() {
        // What never changes need not be asked often.
        agent = agent.status_interval(Duration::from_secs(30));
    }
    if let (true, Some(port)) = (flags.dial_back, port) {
        agent = agent.tunnel(false).http_port(port);
    }
    Ok(agent.build()?)
}
