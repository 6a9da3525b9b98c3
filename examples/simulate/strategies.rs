//! Strategies by name.

use std::sync::Arc;

use gateway_core::{Balancer, BestFit, LeastLoaded, RoundRobin};

use super::machine::Machine;
use super::reference::{Ideal, LeastTokens, PrefixGate, View};

/// Every name that [`balancer`] knows.
pub(crate) const NAMES: [&str; 7] = [
    "round-robin",
    "least-loaded",
    "best-fit",
    "ref-prefix-gate",
    "ref-least-tokens",
    "ref-least-tokens-raw",
    IDEAL,
];

/// The bound; its runners share one cache.
pub(crate) const IDEAL: &str = "ideal";

/// The strategy of that name, made for these runners.
pub(crate) fn balancer(name: &str, view: &View, machine: &Machine) -> Option<Arc<dyn Balancer>> {
    Some(match name {
        "round-robin" => Arc::new(RoundRobin::default()),
        "least-loaded" => Arc::new(LeastLoaded::default()),
        "best-fit" => Arc::new(BestFit),
        "ref-prefix-gate" => Arc::new(PrefixGate::new(view.len(), machine.kv_blocks as usize)),
        "ref-least-tokens" => Arc::new(LeastTokens { view: view.clone(), in_blocks: true }),
        "ref-least-tokens-raw" => Arc::new(LeastTokens { view: view.clone(), in_blocks: false }),
        IDEAL => Arc::new(Ideal { view: view.clone() }),
        _ => return None,
    })
}
