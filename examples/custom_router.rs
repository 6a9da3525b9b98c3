//! A router of your own: runners that are set aside for maintenance are not used, and say so.
//!
//! `cargo run --example custom_router`

use gateway_core::{BoxError, CapabilityRouter, Fleet, Pool, Refusal, Requirements, Router, Runner};
use gateway_http::Gateway;

#[path = "support/mod.rs"]
mod support;

/// What [`CapabilityRouter`] says, less the runners with the label `maintenance`.
pub(crate) struct MindMaintenance;

impl Router for MindMaintenance {
    fn pool<'f>(&self, requirements: &Requirements, fleet: &'f Fleet) -> Pool<'f> {
        // Its index by model is good, but not every runner in it will do: each must be looked at.
        CapabilityRouter.pool(requirements, fleet).inexact()
    }

    fn verdict(&self, requirements: &Requirements, runner: &Runner) -> Result<(), Refusal> {
        if let Some(why) = runner.spec().labels.get("maintenance") {
            return Err(Refusal::Other(format!("is in maintenance: {why}")));
        }
        CapabilityRouter.verdict(requirements, runner)
    }
}

/// Asks while one of two runners is in maintenance, and again when only that one is left.
///
/// # Errors
/// Anything that went wrong.
pub(crate) async fn run() -> Result<Vec<String>, BoxError> {
    use gateway_core::{LeaveReason, Registry};
    let registry = support::registry();
    support::join(&*registry, "resting", &[("maintenance", "new fans")])?;
    let working = support::join(&*registry, "working", &[])?;
    let gateway = Gateway::builder()
        .registry(registry.clone())
        .router(MindMaintenance)
        .client_tokens(["client-secret"])
        .build()?;
    let mut seen = vec![support::chat(&gateway).await?];
    registry.leave(&working, LeaveReason::Disconnected);
    seen.push(support::chat(&gateway).await?);
    Ok(seen)
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    for line in run().await? {
        println!("{line}");
    }
    Ok(())
}
