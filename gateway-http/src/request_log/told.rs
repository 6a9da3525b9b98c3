use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use gateway_core::{ModelId, RequestId, RunnerId, Tenant};
use http::Method;

use super::record::RequestRecord;
use super::sinks::Sinks;
use super::usage::Scanner;
use crate::route::Endpoint;

/// What sinks are told of a request beyond what log and metrics need. In a box of its own, so that a gateway
/// without sinks carries a pointer.
pub(super) struct Told {
    sinks: Arc<Sinks>,
    time: SystemTime,
    pub(super) tenant: Option<Tenant>,
    pub(super) failed_on: Option<RunnerId>,
    pub(super) bytes_in: Option<u64>,
    /// The same, of a body that is passed on while it comes.
    pub(super) streamed_in: Option<Arc<AtomicU64>>,
    bytes_out: u64,
    model_used: Option<ModelId>,
    hedged: bool,
    queue_time: Option<Duration>,
    first_byte: Option<Duration>,
    /// Only while a runner answers, and only if somebody wants to know.
    scanner: Option<Scanner>,
}

/// What the record itself knows at the end.
pub(super) struct Finished<'a> {
    pub(super) id: &'a RequestId,
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) endpoint: Endpoint,
    pub(super) model: Option<&'a ModelId>,
    pub(super) runner: Option<&'a RunnerId>,
    pub(super) tries: u32,
    pub(super) status: u16,
    pub(super) outcome: &'static str,
    pub(super) duration: Duration,
}

impl Told {
    pub(super) fn new(sinks: &Arc<Sinks>) -> Self {
        Self {
            sinks: sinks.clone(),
            time: SystemTime::now(),
            tenant: None,
            failed_on: None,
            bytes_in: None,
            streamed_in: None,
            bytes_out: 0,
            model_used: None,
            hedged: false,
            queue_time: None,
            first_byte: None,
            scanner: None,
        }
    }

    pub(super) fn served(
        &mut self,
        model: Option<ModelId>,
        hedged: bool,
        waited: Duration,
        first_byte: Duration,
    ) {
        self.model_used = model;
        self.hedged = hedged;
        self.queue_time = Some(waited);
        self.first_byte = Some(first_byte);
        self.scanner = self.sinks.want_tokens.then(Scanner::default);
    }

    pub(super) fn sent(&mut self, data: &[u8]) {
        self.bytes_out += data.len() as u64;
        if let Some(scanner) = &mut self.scanner {
            scanner.push(data);
        }
    }

    pub(super) fn tell(&self, finished: Finished<'_>) {
        let Finished { id, method, path, endpoint, model, runner, tries, status, outcome, duration } =
            finished;
        let streamed_in = self.streamed_in.as_ref().map(|bytes| bytes.load(Ordering::Relaxed));
        let usage = self.scanner.as_ref().map(Scanner::usage).unwrap_or_default();
        self.sinks.tell(&RequestRecord {
            time: self.time,
            request_id: id,
            route: endpoint.as_str(),
            method,
            path,
            model_asked: model,
            model_used: self.model_used.as_ref(),
            tenant: self.tenant.as_ref(),
            runner: runner.or(self.failed_on.as_ref()),
            tries,
            hedged: self.hedged,
            status,
            outcome,
            queue_time: self.queue_time,
            first_byte: self.first_byte,
            duration,
            bytes_in: self.bytes_in.or(streamed_in),
            bytes_out: self.bytes_out,
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
        });
    }
}
