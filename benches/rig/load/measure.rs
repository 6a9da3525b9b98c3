//! What is counted and timed.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use gateway_benches::wire::clock::SECOND;

/// Times in nanoseconds, to three digits.
#[derive(Debug)]
pub(super) struct Times(Histogram<u64>);

impl Times {
    /// The longest that is told apart.
    const LONGEST: u64 = 600 * SECOND;

    /// # Panics
    /// Never: the bounds are valid.
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(100, Self::LONGEST, 3).expect("valid bounds"))
    }

    pub(super) fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos.max(100));
    }

    /// In microseconds.
    fn json(&self) -> Value {
        if self.0.is_empty() {
            return Value::Null;
        }
        let micros = |nanos: u64| (nanos / 100) as f64 / 10.0;
        let at = |quantile| micros(self.0.value_at_quantile(quantile));
        json!({
            "count": self.0.len(),
            "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999), "max": micros(self.0.max()),
        })
    }
}

/// Everything that a run tells.
#[derive(Debug)]
pub(super) struct Measured {
    /// The time in which what is told of the window has to begin and end.
    pub(super) window: (u64, u64),
    pub(super) latency: Times,
    /// To the first chunk.
    pub(super) first_chunk: Times,
    /// Between two chunks of a stream.
    pub(super) gap: Times,
    /// From the engine's sending of a chunk.
    pub(super) transit: Times,
    /// By how much this program was late itself.
    pub(super) late: Times,
    /// In the window.
    pub(super) ok: u64,
    /// In the window.
    pub(super) chunks: u64,
    /// In all.
    pub(super) started: u64,
    pub(super) all_ok: u64,
    pub(super) all_chunks: u64,
    pub(super) bad_status: u64,
    pub(super) broken: u64,
    /// Streams without their end, or with other chunks than they should have.
    pub(super) incomplete: u64,
    /// Requests that were due and had no connection at the end.
    pub(super) unsent: u64,
    /// The first thing that went wrong.
    pub(super) problem: Option<String>,
}

impl Measured {
    pub(super) fn new() -> Self {
        Self {
            window: (u64::MAX, u64::MAX),
            latency: Times::new(),
            first_chunk: Times::new(),
            gap: Times::new(),
            transit: Times::new(),
            late: Times::new(),
            ok: 0,
            chunks: 0,
            started: 0,
            all_ok: 0,
            all_chunks: 0,
            bad_status: 0,
            broken: 0,
            incomplete: 0,
            unsent: 0,
            problem: None,
        }
    }

    /// Whether what began and ended then belongs to the window.
    pub(super) fn is_within(&self, began: u64, ended: u64) -> bool {
        began >= self.window.0 && ended <= self.window.1
    }

    /// One line of JSON. `ended`: when the run was over.
    pub(super) fn json(&self, ended: u64) -> String {
        let seconds = ended.min(self.window.1).saturating_sub(self.window.0) as f64 / SECOND as f64;
        let rate = |count: u64| if seconds > 0.0 { (count as f64 / seconds).round() } else { 0.0 };
        json!({
            "seconds": seconds,
            "ok": self.ok,
            "per_second": rate(self.ok),
            "chunks": self.chunks,
            "chunks_per_second": rate(self.chunks),
            "started": self.started,
            "all_ok": self.all_ok,
            "all_chunks": self.all_chunks,
            "bad_status": self.bad_status,
            "broken": self.broken,
            "incomplete": self.incomplete,
            "unsent": self.unsent,
            "problem": self.problem,
            "latency_us": self.latency.json(),
            "first_chunk_us": self.first_chunk.json(),
            "gap_us": self.gap.json(),
            "transit_us": self.transit.json(),
            "late_us": self.late.json(),
        })
        .to_string()
    }
}
