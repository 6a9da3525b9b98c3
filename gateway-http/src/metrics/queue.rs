use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use gateway_core::{Dispatcher, Priority, WaitEnd, Waited};
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::encode::{Sample, counter, counters, gauges};
use super::histogram::Histogram;

/// From the blink of an eye to what nobody waits for.
const WAITS: &[u64] = &[
    1_000,
    5_000,
    10_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
];

/// Requests that waited for a slot, or were not let into the queue.
pub(super) struct QueueMetrics {
    waits: Histogram,
    ends: [AtomicU64; WaitEnd::ALL.len()],
}

impl Default for QueueMetrics {
    fn default() -> Self {
        Self { waits: Histogram::new(WAITS), ends: Default::default() }
    }
}

impl QueueMetrics {
    pub(super) fn count(&self, waited: &Waited<'_>) {
        if let Some(at) = WaitEnd::ALL.iter().position(|end| *end == waited.end) {
            self.ends[at].fetch_add(1, Ordering::Relaxed);
        }
        // Who was not let in has not waited.
        if waited.end != WaitEnd::Refused {
            self.waits.observe(waited.waited);
        }
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Seconds that requests waited for a slot, however the waiting ended";
        let name = "gateway_queue_wait_seconds";
        self.waits.encode(encoder.encode_descriptor(name, help, None, MetricType::Histogram)?)?;

        let counts =
            || WaitEnd::ALL.into_iter().zip(self.ends.iter().map(|count| count.load(Ordering::Relaxed)));
        let left = counts().filter(|(end, _)| *end != WaitEnd::Refused);
        let left = left.map(|(end, count)| -> Sample<'_, 1> { ([("end", end.as_str())], count) });
        counters(encoder, "gateway_queue_left", "Requests that waited for a slot, by how that ended", left)?;

        let refused = counts().find(|(end, _)| *end == WaitEnd::Refused).map_or(0, |(_, count)| count);
        let help =
            "Requests that were not let into the queue, because it or their tenant's share of it was full";
        counter(encoder, "gateway_queue_refused", help, refused)
    }
}

/// Who waits at the moment of the scrape.
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, dispatcher: &Dispatcher) -> fmt::Result {
    let by_priority = dispatcher.queue().by_priority;
    let samples = Priority::ALL.into_iter().zip(by_priority);
    let samples = samples
        .map(|(priority, count)| -> Sample<'_, 1> { ([("priority", priority.as_str())], count as u64) });
    gauges(
        encoder,
        "gateway_queue_depth",
        "Requests that wait for a slot, by the class they came with",
        samples,
    )
}
