use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use gateway_core::{LoadEnd, ModelLoad};
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::encode::counters;
use super::histogram::Histogram;

/// From a small model in the page cache to the longest that is waited for, ten minutes.
const TIMES: &[u64] = &[
    100_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    20_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
    600_000_000,
];

/// Models that were loaded because requests asked for them, or were to be.
pub(super) struct LoadMetrics {
    ends: [AtomicU64; LoadEnd::ALL.len()],
    times: Histogram,
}

impl Default for LoadMetrics {
    fn default() -> Self {
        Self { ends: Default::default(), times: Histogram::new(TIMES) }
    }
}

impl LoadMetrics {
    pub(super) fn count(&self, load: &ModelLoad<'_>) {
        if let Some(at) = LoadEnd::ALL.iter().position(|end| *end == load.end) {
            self.ends[at].fetch_add(1, Ordering::Relaxed);
        }
        // How long a failure took says nothing of how long a load takes.
        if load.end == LoadEnd::Loaded {
            self.times.observe(load.duration);
        }
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let ends = LoadEnd::ALL.iter().zip(&self.ends);
        let samples = ends.map(|(end, count)| ([("outcome", end.as_str())], count.load(Ordering::Relaxed)));
        let help = "Orders to load a model because requests ask for it, by how they ended";
        counters(encoder, "gateway_model_loads", help, samples)?;

        let help = "Seconds that the loads took that succeeded";
        let name = "gateway_model_load_seconds";
        self.times.encode(encoder.encode_descriptor(name, help, None, MetricType::Histogram)?)
    }
}
