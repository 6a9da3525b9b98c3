use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use gateway_core::ModelId;
use http::HeaderValue;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::encode::counters;
use super::histogram::Histogram;
use crate::route::Inference;

/// The most models that have a label of their own. All others count as `other`, so that no fleet, however
/// strange its models' names, makes the metrics grow without bound.
const MAX_MODELS: usize = 1024;

/// From a prompt in a cache to the longest prefill that is waited for.
const FIRST_BYTES: &[u64] = &[
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
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
    300_000_000,
];

/// Microseconds are the normal case; a tenth of a second means that something is badly wrong.
const OVERHEADS: &[u64] =
    &[5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000];

/// Requests for inference.
pub(crate) struct InferenceMetrics {
    pub(crate) first_byte: Histogram,
    pub(crate) overhead: Histogram,
    by_model: ArcSwap<HashMap<ModelId, Arc<ModelSeries>>>,
    other: Arc<ModelSeries>,
}

/// What is kept ready for a model: its counters, and its name as a header.
pub(crate) struct ModelSeries {
    header: Option<HeaderValue>,
    counts: [AtomicU64; 3],
}

impl ModelSeries {
    fn new(header: Option<HeaderValue>) -> Arc<Self> {
        Arc::new(Self { header, counts: Default::default() })
    }

    pub(crate) fn count(&self, api: Inference) {
        if let Some(count) = self.counts.get(api as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Default for InferenceMetrics {
    fn default() -> Self {
        Self {
            first_byte: Histogram::new(FIRST_BYTES),
            overhead: Histogram::new(OVERHEADS),
            by_model: ArcSwap::default(),
            other: ModelSeries::new(None),
        }
    }
}

impl InferenceMetrics {
    /// The series of a model that some runner knows, or of all others.
    pub(crate) fn series(&self, known: Option<&ModelId>) -> Arc<ModelSeries> {
        // A model that is called so would be a second series of the same name.
        let Some(model) = known.filter(|model| model.as_str() != "other") else { return self.other.clone() };
        let by_model = self.by_model.load();
        if let Some(series) = by_model.get(model) {
            return series.clone();
        }
        if by_model.len() >= MAX_MODELS {
            return self.other.clone();
        }
        let new = ModelSeries::new(HeaderValue::from_bytes(model.as_str().as_bytes()).ok());
        // Once per model. Of two that come at once, one's map wins and both see it.
        self.by_model.rcu(|old| {
            let mut next = HashMap::clone(old);
            if next.len() < MAX_MODELS {
                next.entry(model.clone()).or_insert_with(|| new.clone());
            }
            next
        });
        self.by_model.load().get(model).unwrap_or(&self.other).clone()
    }

    /// The model's name as a header, ready made if it has been asked for by that name; `None` if a header
    /// cannot hold it.
    pub(crate) fn header(&self, model: &ModelId) -> Option<HeaderValue> {
        match self.by_model.load().get(model) {
            Some(series) => series.header.clone(),
            None => HeaderValue::from_bytes(model.as_str().as_bytes()).ok(),
        }
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        const TYPES: [&str; 3] = ["chat", "completion", "embedding"];
        let by_model = self.by_model.load_full();
        let named = by_model.iter().map(|(model, series)| (model.as_str(), series));
        let samples = named.chain([("other", &self.other)]).flat_map(|(model, series)| {
            let counts = series.counts.iter().map(|count| count.load(Ordering::Relaxed));
            let used = TYPES.iter().zip(counts).filter(|(_, count)| *count > 0);
            used.map(move |(api, count)| ([("model", model), ("type", *api)], count))
        });
        counters(encoder, "inference_requests", "Requests for inference, by model and API", samples)?;

        let help = "Seconds from a request's arrival to the first byte of its answer's body";
        let name = "gateway_time_to_first_byte_seconds";
        self.first_byte.encode(encoder.encode_descriptor(name, help, None, MetricType::Histogram)?)?;

        let help =
            "Seconds that the gateway took between a request's body and the sending to its first runner";
        let name = "gateway_overhead_seconds";
        self.overhead.encode(encoder.encode_descriptor(name, help, None, MetricType::Histogram)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded() {
        let metrics = InferenceMetrics::default();
        for at in 0..MAX_MODELS + 5 {
            let model = ModelId::new(format!("model-{at}")).unwrap();
            metrics.series(Some(&model)).count(Inference::Chat);
        }
        assert_eq!(metrics.by_model.load().len(), MAX_MODELS);
        assert_eq!(metrics.other.counts[0].load(Ordering::Relaxed), 5);
    }
}
