use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::DescriptorEncoder;

use super::encode::counters;
use crate::error::Reason;

/// Requests that the gateway itself answered with an error.
#[derive(Default)]
pub(crate) struct RefusedMetrics([AtomicU64; Reason::ALL.len()]);

impl RefusedMetrics {
    pub(crate) fn count(&self, reason: Reason) {
        if let Some(count) = self.0.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let samples = Reason::ALL.iter().zip(&self.0);
        counters(
            encoder,
            "gateway_refused",
            "Requests that the gateway answered with an error of its own",
            samples.map(|(reason, count)| ([("reason", reason.as_str())], count.load(Ordering::Relaxed))),
        )
    }
}
