use std::time::{Duration, SystemTime};

use gateway_core::{ModelId, RequestId, RunnerId, Tenant};
use http::Method;

use crate::decision::Decision;

/// One finished request, as a [`RequestSink`] is told of it. It has no body, no header, no key and no query
/// string. What is not known is `None`, and never zero instead.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RequestRecord<'a> {
    /// When it arrived.
    pub time: SystemTime,
    /// Its name, as in logs and in the header `x-request-id`.
    pub request_id: &'a RequestId,
    /// The route's template, such as `/v1/chat/completions`; `door` for those of runner sources, `generic` for
    /// [`GenericRoute`](crate::GenericRoute)s, `other` if there is no such route.
    pub route: &'static str,
    /// Its method.
    pub method: &'a Method,
    /// Its path, without the query.
    pub path: &'a str,
    /// The model that it names.
    pub model_asked: Option<&'a ModelId>,
    /// The model that answered: another one if the name stands for others.
    pub model_used: Option<&'a ModelId>,
    /// On whose account it was.
    pub tenant: Option<&'a Tenant>,
    /// The runner that answered, or else the one that failed last.
    pub runner: Option<&'a RunnerId>,
    /// On how many runners it was tried.
    pub tries: u32,
    /// Whether it was sent to a second runner because the first took long.
    pub hedged: bool,
    /// The status that the client got; 499 if it left before.
    pub status: u16,
    /// How it ended, in the words of the event `request finished`, such as `success`, `cancelled` or
    /// `queue_timeout`. There are a few dozen.
    pub outcome: &'static str,
    /// How long it waited for a slot or a model, if a runner answered.
    pub queue_time: Option<Duration>,
    /// From its arrival to the first byte of a runner's answer.
    pub first_byte: Option<Duration>,
    /// From its arrival to the end of its answer. That of a connection which changes its protocol is the 101:
    /// what comes after is not counted here.
    pub duration: Duration,
    /// Bytes of its body, as far as the gateway read one.
    pub bytes_in: Option<u64>,
    /// Bytes of the answer's body that were handed to the server.
    pub bytes_out: u64,
    /// Tokens of the prompt, if the engine said so in `usage`.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer, if the engine said so in `usage`. Streams often do so only when the client asks
    /// for it with `stream_options.include_usage`.
    pub completion_tokens: Option<u64>,
}

/// **Where accounts of requests go.** Told of every request to the gateway, whatever its route, when its
/// answer has ended or its client has left. See [`GatewayBuilder::request_sink`].
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use gateway_http::{RequestRecord, RequestSink};
///
/// #[derive(Default)]
/// struct Tokens(AtomicU64);
///
/// impl RequestSink for Tokens {
///     fn record(&self, record: &RequestRecord<'_>) {
///         let tokens = record.prompt_tokens.unwrap_or(0) + record.completion_tokens.unwrap_or(0);
///         self.0.fetch_add(tokens, Ordering::Relaxed);
///     }
/// }
/// ```
///
/// [`GatewayBuilder::request_sink`]: crate::GatewayBuilder::request_sink
pub trait RequestSink: Send + Sync + 'static {
    /// A request is over. Called on the request's own way, also while a body is being dropped: it must not
    /// block, and should take no longer than a few microseconds.
    fn record(&self, record: &RequestRecord<'_>);

    /// Whether it wants to know of tokens. They are looked for in the bytes of every answer, which took
    /// 32 µs per MiB where it was measured (`benches/request_log.rs`); if nobody wants to know, nobody looks. Asked
    /// once.
    fn wants_tokens(&self) -> bool {
        true
    }

    /// Done when everything that it was told before has been written. Cancel safe: it goes on writing.
    /// Awaited at the end of [`Gateway::shutdown`](crate::Gateway::shutdown).
    fn flush(&self) -> Decision<'_, ()> {
        Decision::Now(())
    }

    /// How many records it has not taken or could not write. Shown by the metric
    /// `gateway_request_log_dropped_total`, summed over all sinks.
    fn dropped(&self) -> u64 {
        0
    }
}
