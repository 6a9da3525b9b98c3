//! Strategies by name.

use std::sync::Arc;

use gateway_core::{Balancer, PrefixCache, Strategy};

use super::machine::Machine;
use super::reference::{Ideal, LeastTokens, PrefixGate, View};

/// The references and the bound, beside [`Strategy::ALL`].
const REFERENCES: [&str; 4] = ["ref-prefix-gate", "ref-least-tokens", "ref-least-tokens-raw", IDEAL];

/// Every name that [`balancer`] knows.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    Strategy::ALL.iter().map(|strategy| strategy.as_str()).chain(REFERENCES)
}

/// The bound; its runners share one cache.
pub(crate) const IDEAL: &str = "ideal";

/// The strategy of that name, made for these runners.
pub(crate) fn balancer(name: &str, view: &View, machine: &Machine) -> Option<Arc<dyn Balancer>> {
    Some(match name {
        "prefix-cache" => Arc::new(PrefixCache::new(machine.kv_blocks * machine.block_tokens)),
        "ref-prefix-gate" => Arc::new(PrefixGate::new(view.len(), machine.kv_blocks as usize)),
        "ref-least-tokens" => Arc::new(LeastTokens { view: view.clone(), in_blocks: true }),
        "ref-least-tokens-raw" => Arc::new(LeastTokens { view: view.clone(), in_blocks: false }),
        IDEAL => Arc::new(Ideal { view: view.clone() }),
        name => return name.parse().ok().map(|strategy: Strategy| strategy.build()),
    })
}
