//! The record of one request: one event in the log, its share of the metrics and what the sinks are told,
//! when it is over.

mod record;
mod sinks;
#[cfg(feature = "sqlite")]
mod sqlite;
mod told;
mod usage;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use gateway_core::{Dispatched, ModelId, RequestId, Runner};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use tokio::time::Instant;

pub use record::{RequestRecord, RequestSink};
pub(crate) use sinks::Sinks;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteLog, SqliteLogBuilder, SqliteLogError};

use crate::auth::Identity;
use crate::error::ApiError;
use told::{Finished, Told};

use crate::metrics::Metrics;
use crate::route::Endpoint;

/// Made when a request arrives, finished when the body of its answer is. Dropped unfinished, the client
/// went away.
pub(crate) struct Record {
    metrics: Arc<Metrics>,
    id: RequestId,
    method: Method,
    path: Option<PathAndQuery>,
    endpoint: Endpoint,
    started: Instant,
    status: Option<StatusCode>,
    pub(crate) model: Option<ModelId>,
    runner: Option<Arc<Runner>>,
    tries: u32,
    /// What happened, where the status alone does not tell.
    pub(crate) outcome: Option<&'static str>,
    detail: Option<String>,
    /// What only the sinks want to know; `None` if there are none.
    told: Option<Box<Told>>,
    finished: bool,
}

/// Who answered, and when.
pub(crate) struct Served {
    runner: Arc<Runner>,
    model: Option<ModelId>,
    waited: Duration,
    tries: u32,
    hedged: bool,
    is_fallback: bool,
    sent: Instant,
    first_byte: Instant,
}

impl Served {
    pub(crate) fn by(answer: &Dispatched) -> Self {
        let Dispatched { tries, hedged, is_fallback, waited, sent, first_byte, .. } = *answer;
        let (runner, model) = (answer.runner.clone(), answer.model.clone());
        Self { runner, model, waited, tries, hedged, is_fallback, sent, first_byte }
    }
}

/// What access logs write when the client left before there was an answer.
const CLIENT_LEFT: u16 = 499;

impl Record {
    pub(crate) fn new(
        metrics: &Arc<Metrics>,
        sinks: Option<&Arc<Sinks>>,
        id: RequestId,
        request: &http::request::Parts,
        endpoint: Endpoint,
    ) -> Self {
        Self {
            metrics: metrics.clone(),
            id,
            method: request.method.clone(),
            path: request.uri.path_and_query().cloned(),
            endpoint,
            started: Instant::now(),
            status: None,
            model: None,
            runner: None,
            tries: 0,
            outcome: None,
            detail: None,
            told: sinks.map(|sinks| Box::new(Told::new(sinks))),
            finished: false,
        }
    }

    pub(crate) fn id(&self) -> &RequestId {
        &self.id
    }

    /// It is known who asks.
    pub(crate) fn asked_by(&mut self, identity: &Identity) {
        if let Some(told) = &mut self.told {
            told.tenant = identity.tenant().cloned();
        }
    }

    /// The request's body is here, with so many bytes.
    pub(crate) fn received(&mut self, bytes: usize) {
        if let Some(told) = &mut self.told {
            told.bytes_in = Some(bytes as u64);
        }
    }

    /// The request's body is passed on while it comes: where to count its bytes, if somebody wants to know.
    pub(crate) fn receiving(&mut self) -> Option<Arc<AtomicU64>> {
        let told = self.told.as_mut()?;
        Some(told.streamed_in.get_or_insert_default().clone())
    }

    /// A part of the answer's body goes out.
    pub(crate) fn sent(&mut self, data: &[u8]) {
        if let Some(told) = &mut self.told {
            told.sent(data);
        }
    }

    /// A runner answers a request that was here as a whole at `arrived`.
    pub(crate) fn served(&mut self, by: Served, arrived: Instant) {
        let timings = &self.metrics.inference;
        timings.first_byte.observe(by.first_byte - self.started);
        // With several tries the time is mostly that of the runners that failed.
        if by.tries == 1 {
            timings.overhead.observe(by.sent - arrived);
        }
        // A hedge is a try, too.
        let retries = by.tries.saturating_sub(1 + u32::from(by.hedged));
        self.metrics.detours.count(retries, by.hedged, by.is_fallback);
        if let Some(told) = &mut self.told {
            told.served(by.model, by.hedged, by.waited, by.first_byte - self.started);
        }
        self.runner = Some(by.runner);
        self.tries = by.tries;
    }

    /// The gateway itself tells the client of a failure.
    pub(crate) fn failed(&mut self, error: &ApiError) {
        self.metrics.refused.count(error.reason);
        self.metrics.detours.count(error.tries.saturating_sub(1), false, false);
        self.tries = error.tries;
        self.outcome = Some(error.reason.as_str());
        self.detail.clone_from(&error.detail);
        if let Some(told) = &mut self.told {
            told.failed_on.clone_from(&error.runner);
        }
    }

    /// The head of the answer is on its way.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// The answer may take long. What is kept until then is let go of the block that the client's request was
    /// read into: 8 KiB per stream, or as long as a prompt.
    pub(crate) fn lasts(&mut self) {
        self.path = self.path.as_ref().and_then(|path| path.path().parse().ok());
    }

    /// The answer went out whole, or `broken` says why not.
    pub(crate) fn finish(&mut self, broken: Option<&'static str>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let status = self.status.map_or(CLIENT_LEFT, |status| status.as_u16());
        let outcome = broken.or(self.outcome).unwrap_or(match status {
            429 | 503 => "overloaded",
            400..=499 => "client_fault",
            500.. => "runner_fault_status",
            _ => "success",
        });
        let duration = self.started.elapsed();
        self.metrics.requests.finished(self.endpoint, &self.method, status, duration);
        // The query is left out: keys end up there by mistake.
        let path = self.path.as_ref().map_or("/", |path| path.path());
        tracing::info!(
            target: "gateway::request",
            request_id = %self.id,
            method = %self.method,
            path,
            model = self.model.as_ref().map(|model| model.as_str()),
            runner = self.runner.as_ref().map(|runner| runner.id().as_str()),
            status,
            tries = (self.tries > 0).then_some(self.tries),
            // To the microsecond: what is finer is noise, and longer.
            duration_ms = duration.as_micros() as f64 / 1000.0,
            outcome,
            detail = self.detail.as_deref(),
            "request finished"
        );
        if let Some(told) = &self.told {
            told.tell(Finished {
                id: &self.id,
                method: &self.method,
                path,
                endpoint: self.endpoint,
                model: self.model.as_ref(),
                runner: self.runner.as_ref().map(|runner| runner.id()),
                tries: self.tries,
                status,
                outcome,
                duration,
            });
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.finish(Some("cancelled"));
    }
}
