//! Drives `standalone` in front of runners that report what they have free, and says whether it promised anything twice.
//!
//! ```sh
//! cargo build --release --examples && cargo run --release --example capacity -- --seconds 30
//! ```
//!
//! Three runners with 2, 0 and 1 accelerators do tasks that an OpenAPI document describes. After a third of the time one
//! of them dies; after two thirds a fourth one is written into the settings file of the running gateway. Then come bursts
//! while every report is two seconds old. Everything but the runners is real: the program as a process of its own, its
//! file, its sockets.

mod load;
mod report;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use gateway_core::{BoxError, Resources};
use gateway_testkit::{MockServer, ScriptedNeutrino};
use gateway_transport_http::HttpLink;
use load::{Kind, Load};

/// What to do.
#[derive(Parser, Debug)]
struct Flags {
    /// How long the steady load lasts, in seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Tasks per second
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// One of so many tasks needs an accelerator
    #[arg(long, default_value_t = 16)]
    gpu_every: u64,
    /// The program [default: `standalone` beside this one]
    #[arg(long)]
    standalone: Option<PathBuf>,
}

const DOCUMENT: &str = r#"{"openapi": "3.0.3", "paths": {
    "/tasks/{name}/gpu": {"post": {"x-neutrino-resources": {"num_cpus": 1, "num_gpus": 1, "memory_gb": 1},
                                   "x-gateway": {"repeatable": true}}},
    "/tasks/{name}/cpu": {"post": {"x-neutrino-resources": {"num_cpus": 1, "num_gpus": 0, "memory_gb": 1},
                                   "x-gateway": {"repeatable": true}}}}}"#;

/// One that is there, and how to be rid of it.
struct Runner {
    name: &'static str,
    script: ScriptedNeutrino,
    server: Option<MockServer>,
}

impl Runner {
    async fn start(
        name: &'static str,
        (cpus, gpus): (f64, f64),
        looks_every: Duration,
    ) -> Result<Self, BoxError> {
        let total = Resources { cpus, gpus, memory_gb: 64.0 };
        let script = ScriptedNeutrino::flat(total, 64).looks_every(looks_every);
        let server = Some(script.engine().serve_http().await?);
        Ok(Self { name, script, server })
    }
}

/// The program, ended when it is dropped.
struct Gateway {
    process: Child,
    folder: PathBuf,
    port: u16,
}

impl Gateway {
    async fn start(program: &Path, runners: &[Runner], extra: &str) -> Result<Self, BoxError> {
        let folder = std::env::temp_dir().join(format!("capacity-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("tasks.json"), DOCUMENT)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let settings = folder.join("gateway.toml");
        std::fs::write(&settings, settings_of(port, &folder, runners, extra))?;
        let process = Command::new(program)
            .args(["--config".as_ref(), settings.as_os_str()])
            .args(["--workers", "1"])
            .env("RUST_LOG", "warn")
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}; build it first", program.display()))?;
        let gateway = Self { process, folder, port };
        let link = gateway.link()?;
        // Until it answers, and every runner is there.
        while !load::has_runners(&link, runners.len()).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(gateway)
    }

    fn link(&self) -> Result<Arc<HttpLink>, BoxError> {
        Ok(Arc::new(HttpLink::new(format!("http://127.0.0.1:{}", self.port))?))
    }

    /// The file as it should be now; the program finds out by itself.
    fn rewrite(&self, runners: &[Runner], extra: &str) -> Result<(), BoxError> {
        Ok(std::fs::write(
            self.folder.join("gateway.toml"),
            settings_of(self.port, &self.folder, runners, extra),
        )?)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn settings_of(port: u16, folder: &Path, runners: &[Runner], extra: &str) -> String {
    let mut text = format!(
        "listen = '127.0.0.1:{port}'\nclient_tokens = ['t']\nadmin_tokens = ['a']\nstrategy = 'resource-aware'\n\
         [[generic]]\nopenapi = '{}'\n",
        folder.join("tasks.json").display()
    );
    for runner in runners {
        let Some(server) = &runner.server else { continue };
        text += &format!(
            "[[runner]]\nurl = '{}'\nid = '{}'\nkind = 'neutrino'\n{extra}",
            server.url(),
            runner.name
        );
    }
    text
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let flags = Flags::parse();
    let program = match &flags.standalone {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("standalone"),
    };
    steady(&program, &flags).await?;
    bursts(&program).await
}

async fn steady(program: &Path, flags: &Flags) -> Result<(), BoxError> {
    let mut runners = Vec::new();
    for (name, gpus) in [("two", 2.0), ("none", 0.0), ("one", 1.0)] {
        runners.push(Runner::start(name, (8.0, gpus), Duration::ZERO).await?);
    }
    let load = Load { rate: flags.rate, gpu_every: flags.gpu_every };
    let third = Duration::from_secs(flags.seconds) / 3;

    println!("\n{} tasks per second, one of {} for an accelerator", flags.rate, flags.gpu_every);
    let alone = Runner::start("alone", (64.0, 64.0), Duration::ZERO).await?;
    let direct = Arc::new(HttpLink::new(alone.server.as_ref().map(MockServer::url).unwrap_or_default())?);
    report::times("straight to a runner", &load.run(&direct, third.min(Duration::from_secs(5))).await);

    let gateway = Gateway::start(program, &runners, "").await?;
    let link = gateway.link()?;
    report::times("all three", &load.run(&link, third).await);
    report::runners(runners.iter().map(|one| (one.name, &one.script)));

    let dies = async {
        tokio::time::sleep(third / 4).await;
        drop(runners[2].server.take());
    };
    let (done, ()) = tokio::join!(load.run(&link, third), dies);
    report::times("`one` dies", &done);
    report::runners(runners.iter().map(|one| (one.name, &one.script)));

    runners.push(Runner::start("fourth", (8.0, 2.0), Duration::ZERO).await?);
    gateway.rewrite(&runners, "")?;
    report::times("a fourth appears", &load.run(&link, third).await);
    report::runners(runners.iter().map(|one| (one.name, &one.script)));
    Ok(())
}

async fn bursts(program: &Path) -> Result<(), BoxError> {
    let old = Duration::from_secs(2);
    let mut runners = Vec::new();
    for (name, gpus) in [("two", 2.0), ("none", 0.0), ("one", 1.0)] {
        runners.push(Runner::start(name, (8.0, gpus), old).await?);
    }
    let gateway = Gateway::start(program, &runners, "capacity_age_s = 2\nprobe_interval_s = 0.5\n").await?;
    let link = gateway.link()?;
    println!("\nbursts of 50 tasks for an accelerator, reports two seconds old");
    let mut done = Vec::new();
    for _ in 0..8 {
        let burst = (0..50).map(|_| load::ask(&link, Kind::Gpu, Duration::from_millis(60)));
        done.extend(futures_util::future::join_all(burst).await);
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    report::times("8 bursts", &done);
    report::runners(runners.iter().map(|one| (one.name, &one.script)));
    Ok(())
}
