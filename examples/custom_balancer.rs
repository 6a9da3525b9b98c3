//! A balancer of your own: the runner in the own zone first, another zone only when that is full.
//!
//! `cargo run --example custom_balancer`

use gateway_core::{Balancer, BoxError, Candidates, Requirements, Reservation};
use gateway_http::Gateway;

#[path = "support/mod.rs"]
mod support;

/// Prefers runners whose label `zone` is its own.
pub(crate) struct NearestZone {
    /// The zone of this gateway.
    pub(crate) zone: String,
}

impl Balancer for NearestZone {
    fn name(&self) -> &'static str {
        "nearest-zone"
    }

    fn pick(&self, _: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let near =
            candidates.iter().filter(|(_, runner)| runner.spec().labels.get("zone") == Some(&self.zone));
        // Reserving is the choice: a runner that is full says no, and the next is asked.
        near.map(|(at, _)| at).chain(0..candidates.len()).find_map(|at| candidates.try_reserve(at))
    }
}

/// Asks once as things are, and once while both slots of the near runner are taken.
///
/// # Errors
/// Anything that went wrong.
pub(crate) async fn run() -> Result<Vec<String>, BoxError> {
    let registry = support::registry();
    support::join(&*registry, "far", &[("zone", "us")])?;
    support::join(&*registry, "near", &[("zone", "eu")])?;
    let gateway = Gateway::builder()
        .registry(registry.clone())
        .strategy(NearestZone { zone: "eu".to_owned() })
        .client_tokens(["client-secret"])
        .build()?;
    let mut seen = vec![support::chat(&gateway).await?];
    let fleet = gateway.dispatcher().registry().fleet();
    let near = fleet.runner("near").ok_or("the runner has gone")?;
    let _both_slots = (near.try_reserve(), near.try_reserve());
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
