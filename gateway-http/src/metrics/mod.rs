//! What is counted. Everything on a request's way is an atomic that was found before or is found without
//! making a string; the rest is read from the fleet when somebody scrapes.
//!
//! | metric | labels |
//! |---|---|
//! | `gateway_requests_total` | `method`, `endpoint` (the route's template), `status` |
//! | `gateway_request_duration_seconds` | `endpoint` |
//! | `gateway_requests_in_flight` | |
//! | `gateway_refused_total` | `reason` |
//! | `inference_requests_total` | `model` (at most 1,024, then `other`), `type` |
//! | `gateway_time_to_first_byte_seconds`, `gateway_overhead_seconds` | |
//! | `gateway_retries_total`, `gateway_hedges_total`, `gateway_fallbacks_total` | |
//! | `gateway_queue_depth` | `priority` |
//! | `gateway_queue_wait_seconds`, `gateway_queue_refused_total` | |
//! | `gateway_queue_left_total` | `end` |
//! | `gateway_model_loads_total` | `outcome` |
//! | `gateway_model_load_seconds` | |
//! | `gateway_models` | `state` |
//! | `gateway_outcomes_total` | `outcome` |
//! | `gateway_runner_outcomes_total` | `runner`, `outcome` |
//! | `gateway_runner_in_flight`, `_slots`, `_foreign_requests` | `runner` |
//! | `gateway_runner_health` | `runner`, `health` |
//! | `gateway_runner_standing` | `runner`, `standing` |
//! | `gateway_request_log_dropped_total`, if there are request sinks | |

mod detours;
mod encode;
mod fleet;
mod histogram;
mod inference;
mod loads;
mod outcomes;
mod queue;
mod refused;
mod requests;

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use crate::gateway::House;
use detours::DetourMetrics;
use inference::InferenceMetrics;
pub(crate) use inference::ModelSeries;
use loads::LoadMetrics;
use outcomes::OutcomeMetrics;
use queue::QueueMetrics;
use refused::RefusedMetrics;
use requests::RequestMetrics;

/// Everything that one gateway counts.
#[derive(Default)]
pub(crate) struct Metrics {
    pub(crate) requests: RequestMetrics,
    pub(crate) inference: InferenceMetrics,
    pub(crate) refused: RefusedMetrics,
    pub(crate) detours: DetourMetrics,
    outcomes: OutcomeMetrics,
    queue: QueueMetrics,
    loads: LoadMetrics,
    /// Weak, because the gateway owns these metrics, and a host's registry may live longer than it.
    gateway: OnceLock<Weak<House>>,
}

impl Metrics {
    pub(crate) fn serve(&self, gateway: &Arc<House>) {
        // Set once, by the one who built both.
        let _ = self.gateway.set(Arc::downgrade(gateway));
    }

    pub(crate) fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry.register_collector(Box::new(Scrape(self.clone())));
    }

    /// In the OpenMetrics text format.
    pub(crate) fn text(self: &Arc<Self>) -> String {
        let mut registry = Registry::default();
        self.register(&mut registry);
        let mut out = String::with_capacity(16 << 10);
        // Fails only if writing does, and a string takes everything.
        let _ = text::encode(&mut out, &registry);
        out
    }
}

impl gateway_core::Observer for Metrics {
    fn attempt(&self, attempt: &gateway_core::Attempt<'_>) {
        self.outcomes.count(attempt);
    }

    fn waited(&self, waited: &gateway_core::Waited<'_>) {
        self.queue.count(waited);
    }

    fn loaded(&self, load: &gateway_core::ModelLoad<'_>) {
        self.loads.count(load);
    }
}

struct Scrape(Arc<Metrics>);

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let metrics = &self.0;
        metrics.requests.encode(&mut encoder)?;
        metrics.refused.encode(&mut encoder)?;
        metrics.inference.encode(&mut encoder)?;
        metrics.detours.encode(&mut encoder)?;
        metrics.queue.encode(&mut encoder)?;
        metrics.loads.encode(&mut encoder)?;
        let gateway = metrics.gateway.get().and_then(Weak::upgrade).map(|house| house.now());
        let dispatcher = gateway.as_ref().map(|gateway| &gateway.dispatcher);
        metrics.outcomes.encode(&mut encoder, dispatcher.map(|it| it.registry().fleet()).as_deref())?;
        let Some(dispatcher) = dispatcher else { return Ok(()) };
        queue::encode(&mut encoder, dispatcher)?;
        fleet::encode(&mut encoder, dispatcher)?;
        let Some(sinks) = gateway.as_ref().and_then(|gateway| gateway.sinks.as_ref()) else { return Ok(()) };
        let help = "Records of requests that a sink could not take or write";
        encode::counter(&mut encoder, "gateway_request_log_dropped", help, sinks.dropped())
    }
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}
