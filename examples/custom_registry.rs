//! A registry of your own: keeps a journal of who came and went, around the one that is built in.
//!
//! `cargo run --example custom_registry`

use std::sync::{Arc, Mutex, PoisonError};

use gateway_core::{
    BoxError, Fleet, FleetEvents, InMemoryRegistry, LeaveReason, Registry, RunnerChange, RunnerKey,
    RunnerLink, RunnerSpec, RunnerStatus,
};
use gateway_http::Gateway;

#[path = "support/mod.rs"]
mod support;

/// An [`InMemoryRegistry`] that writes down every coming and going.
#[derive(Default)]
pub(crate) struct Journal {
    inner: InMemoryRegistry,
    lines: Mutex<Vec<String>>,
}

impl Journal {
    fn write(&self, line: String) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

impl Registry for Journal {
    fn fleet(&self) -> Arc<Fleet> {
        self.inner.fleet()
    }
    fn events(&self) -> FleetEvents {
        self.inner.events()
    }
    fn join(&self, spec: RunnerSpec, status: RunnerStatus, link: Arc<dyn RunnerLink>) -> RunnerKey {
        let transport = link.describe().transport;
        let key = self.inner.join(spec, status, link);
        self.write(format!("{key} came ({transport})"));
        key
    }
    fn update(&self, key: &RunnerKey, change: RunnerChange) -> bool {
        self.inner.update(key, change)
    }
    fn leave(&self, key: &RunnerKey, reason: LeaveReason) -> bool {
        let left = self.inner.leave(key, reason);
        if left {
            self.write(format!("{key} went ({})", reason.as_str()));
        }
        left
    }
}

/// Lets a runner come, serve and go, and gives back the answer and the journal.
///
/// # Errors
/// Anything that went wrong.
pub(crate) async fn run() -> Result<Vec<String>, BoxError> {
    let journal = Arc::new(Journal::default());
    let gateway = Gateway::builder().registry(journal.clone()).client_tokens(["client-secret"]).build()?;
    let key = support::join(&*journal, "one", &[])?;
    let answer = support::chat(&gateway).await?;
    journal.leave(&key, LeaveReason::Disconnected);
    // The late end of a registration that has gone already is no news.
    journal.leave(&key, LeaveReason::HeartbeatTimeout);
    let lines = journal.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok([vec![answer], lines].concat())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}
