use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Method;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use super::encode::counters;
use super::histogram::Histogram;
use crate::route::Endpoint;

/// Up to five minutes: that is how long a whole answer may take to begin.
const DURATIONS: &[u64] = &[
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

/// Clients may invent methods, so only those that some route takes have a name.
const METHODS: [&str; 8] = ["GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];

/// 100 to 599, and one for what lies outside.
const STATUSES: usize = 501;

/// Every request that was answered, whatever its route.
pub(crate) struct RequestMetrics {
    endpoints: [EndpointMetrics; Endpoint::ALL.len()],
}

struct EndpointMetrics {
    durations: Histogram,
    /// Made when first needed: most pairs of route and method never are.
    by_method: [OnceLock<Box<[AtomicU64; STATUSES]>>; METHODS.len()],
}

impl Default for RequestMetrics {
    fn default() -> Self {
        let endpoints = std::array::from_fn(|_| EndpointMetrics {
            durations: Histogram::new(DURATIONS),
            by_method: Default::default(),
        });
        Self { endpoints }
    }
}

impl RequestMetrics {
    pub(crate) fn finished(&self, endpoint: Endpoint, method: &Method, status: u16, duration: Duration) {
        let Some(endpoint) = self.endpoints.get(endpoint as usize) else { return };
        let method = METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(METHODS.len() - 1);
        let statuses =
            endpoint.by_method[method].get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU64::new(0))));
        let at = usize::from(status).checked_sub(100).filter(|at| *at < STATUSES - 1).unwrap_or(STATUSES - 1);
        statuses[at].fetch_add(1, Ordering::Relaxed);
        endpoint.durations.observe(duration);
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut rows: Vec<(&str, &str, String, u64)> = Vec::new();
        for (endpoint, counts) in Endpoint::ALL.iter().zip(&self.endpoints) {
            for (method, statuses) in METHODS.iter().zip(&counts.by_method) {
                let Some(statuses) = statuses.get() else { continue };
                for (at, count) in statuses.iter().enumerate() {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        let status = if at + 1 < STATUSES { (at + 100).to_string() } else { "other".into() };
                        rows.push((method, endpoint.as_str(), status, count));
                    }
                }
            }
        }
        counters(
            encoder,
            "gateway_requests",
            "Requests that were answered, or whose client left before (499)",
            rows.iter().map(|(method, endpoint, status, count)| {
                ([("method", *method), ("endpoint", *endpoint), ("status", status)], *count)
            }),
        )?;

        let help = "Seconds from a request's arrival to the end of its answer's body";
        let name = "gateway_request_duration_seconds";
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (endpoint, counts) in Endpoint::ALL.iter().zip(&self.endpoints) {
            if !counts.durations.is_empty() {
                counts.durations.encode(metric.encode_family(&[("endpoint", endpoint.as_str())])?)?;
            }
        }
        Ok(())
    }
}
