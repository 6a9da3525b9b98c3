//! The gateway's own dispatcher, router, strategies and queue under virtual time, against modelled runners.
//!
//! ```sh
//! cargo run --release --example simulate -- --trace FILE --runners 8 --load 0.95 --strategy round-robin,least-loaded
//! ```
//!
//! What is modelled, and how: `engine.rs` (continuous batching), `machine.rs` (its figures), `cache.rs` (blocks and
//! their reuse), `modelled.rs` (the link). Everything else is the gateway.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use gateway_core::BoxError;

pub(crate) mod cache;
pub(crate) mod engine;
pub(crate) mod figures;
pub(crate) mod ideal;
mod log;
pub(crate) mod machine;
mod modelled;
pub(crate) mod plot;
mod reference;
pub(crate) mod run;
pub(crate) mod scenario;
mod stopwatch;
pub(crate) mod strategies;
mod synthetic;
pub(crate) mod table;
pub(crate) mod trace;

use figures::Figures;
use ideal::Bounds;
use machine::Machine;
use scenario::{Fault, FaultKind, RunnerAt, Scenario, Straggler, seconds};
use synthetic::Synthetic;
use trace::Trace;

/// Replays a trace of requests against modelled runners, and compares strategies.
#[derive(Debug, Parser)]
#[command(name = "simulate")]
pub(crate) struct Options {
    /// A trace: Mooncake's JSON lines, or Azure's table if the name ends in .csv.
    #[arg(long, required_unless_present = "synthetic")]
    pub(crate) trace: Option<PathBuf>,
    /// Instead of a trace, so many requests of our own making: conversations, with tenants.
    #[arg(long, conflicts_with = "trace")]
    pub(crate) synthetic: Option<usize>,
    /// Tenants of the synthetic load.
    #[arg(long, default_value_t = 4)]
    pub(crate) tenants: usize,
    /// Writes the synthetic load as a trace and ends.
    #[arg(long, requires = "synthetic")]
    pub(crate) write_trace: Option<PathBuf>,
    /// How many runners.
    #[arg(long, default_value_t = 8)]
    pub(crate) runners: usize,
    /// Strategies, separated by commas; `all` is all that are known.
    #[arg(long, value_delimiter = ',', default_value = "all")]
    pub(crate) strategy: Vec<String>,
    /// Scales arrivals so that the load without any cache hit would be this share of the runners' capacity, prompts
    /// and answers counted.
    #[arg(long, conflicts_with = "speedup")]
    pub(crate) load: Option<f64>,
    /// Scales arrivals by this factor.
    #[arg(long)]
    pub(crate) speedup: Option<f64>,
    /// Replays only so many requests from the start.
    #[arg(long)]
    pub(crate) requests: Option<usize>,
    /// A slow runner, `N` or `N@FACTOR` (from 0; three times slower unless said). May be given more than once.
    #[arg(long)]
    pub(crate) straggler: Vec<Straggler>,
    /// A runner dies, `N@SECONDS` after the first arrival. May be given more than once.
    #[arg(long)]
    pub(crate) kill: Vec<RunnerAt>,
    /// A dead runner comes back with an empty cache, `N@SECONDS`. May be given more than once.
    #[arg(long)]
    pub(crate) revive: Vec<RunnerAt>,
    /// How old runners' reports of their load are when they arrive, such as 5s.
    #[arg(long, value_parser = seconds, default_value = "0s")]
    pub(crate) report_delay: Duration,
    /// Seed of the strategies' draws and of the synthetic load.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Prompt tokens per second of a runner.
    #[arg(long, default_value_t = Machine::default().prefill_rate)]
    pub(crate) prefill_rate: f64,
    /// Milliseconds of a generating step, whatever the batch.
    #[arg(long, default_value_t = Machine::default().step_base * 1e3)]
    pub(crate) step_base_ms: f64,
    /// Milliseconds that each sequence adds to a generating step.
    #[arg(long, default_value_t = Machine::default().step_per_sequence * 1e3)]
    pub(crate) step_per_sequence_ms: f64,
    /// Tokens of one iteration, prompts and answers together.
    #[arg(long, default_value_t = Machine::default().budget)]
    pub(crate) token_budget: u32,
    /// Sequences that a runner runs at once, which is also what it tells the gateway.
    #[arg(long, default_value_t = Machine::default().slots)]
    pub(crate) slots: u32,
    /// Blocks of 512 tokens in a runner's memory.
    #[arg(long, default_value_t = Machine::default().kv_blocks)]
    pub(crate) kv_blocks: u32,
    /// Writes the figures as JSON: a list with one object per strategy.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Writes a picture: SVG, or a page with it if the name ends in .html.
    #[arg(long)]
    pub(crate) plot: Option<PathBuf>,
}

impl Options {
    /// What the options describe.
    pub(crate) fn scenario(&self) -> Result<Scenario, BoxError> {
        let mut trace = match &self.trace {
            Some(path) => Trace::read(path)?,
            None => Trace::from_lines(self.synthetic().lines())?,
        };
        trace.requests.truncate(self.requests.unwrap_or(usize::MAX));
        let machine = Machine {
            prefill_rate: self.prefill_rate,
            step_base: self.step_base_ms / 1e3,
            step_per_sequence: self.step_per_sequence_ms / 1e3,
            budget: self.token_budget,
            slots: self.slots,
            kv_blocks: self.kv_blocks,
            block_tokens: trace.block_tokens,
            slowdown: 1.0,
        };
        let mut scenario = Scenario::new(trace, self.runners.max(1), machine);
        let fault = |kind| move |fault: &RunnerAt| Fault { runner: fault.runner, at: fault.at, kind };
        scenario.faults.extend(self.kill.iter().map(fault(FaultKind::Dies)));
        scenario.faults.extend(self.revive.iter().map(fault(FaultKind::ComesBack)));
        scenario.stragglers.clone_from(&self.straggler);
        scenario.report_delay = self.report_delay;
        scenario.seed = self.seed;
        let named = scenario.faults.iter().map(|fault| fault.runner);
        if let Some(none) =
            named.chain(self.straggler.iter().map(|slow| slow.runner)).find(|n| *n >= self.runners)
        {
            return Err(format!("there is no runner {none}: they are 0 to {}", self.runners - 1).into());
        }
        match (self.load, self.speedup) {
            (Some(load), _) => scenario.scale_to(load),
            (None, Some(factor)) => scenario.trace.speed_up(factor),
            (None, None) => {}
        }
        Ok(scenario)
    }

    fn synthetic(&self) -> Synthetic {
        Synthetic { requests: self.synthetic.unwrap_or(0), tenants: self.tenants.max(1), seed: self.seed }
    }

    fn strategies(&self) -> Vec<&str> {
        let all = self.strategy.iter().any(|name| name == "all");
        if all { strategies::names().collect() } else { self.strategy.iter().map(String::as_str).collect() }
    }
}

/// Runs every strategy that is asked for and gives their figures.
///
/// # Errors
/// A trace that cannot be read, a strategy that does not exist, a runner that is none.
pub(crate) fn simulate(options: &Options) -> Result<(Scenario, Bounds, Vec<Figures>), BoxError> {
    let scenario = options.scenario()?;
    let bounds = Bounds::of(&scenario);
    let mut figures = Vec::new();
    for name in options.strategies() {
        let run = run::run(&scenario, name).ok_or_else(|| {
            format!("no strategy `{name}`; there are: {}", strategies::names().collect::<Vec<_>>().join(", "))
        })?;
        figures.push(Figures::of(&scenario, name, &run, &bounds));
    }
    Ok((scenario, bounds, figures))
}

fn work(options: &Options) -> Result<(), BoxError> {
    if let Some(path) = &options.write_trace {
        let lines: Result<Vec<String>, _> =
            options.synthetic().lines().iter().map(serde_json::to_string).collect();
        return Ok(std::fs::write(path, lines?.join("\n") + "\n")?);
    }
    let (scenario, bounds, figures) = simulate(options)?;
    print!("{}", table::render(&scenario, &bounds, &figures));
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&figures)? + "\n")?;
    }
    if let Some(path) = &options.plot {
        let page = path.extension().is_some_and(|extension| extension == "html");
        std::fs::write(path, if page { plot::page(&figures) } else { plot::svg(&figures) })?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match work(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("simulate: {error}");
            ExitCode::FAILURE
        }
    }
}
