//! Event streams that begin before their runner does, so that nothing on the way takes the connection for
//! dead while a first token is waited for.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gateway_core::{DispatchBody, DispatchError, Dispatched};
use http::StatusCode;
use http::header::CONTENT_ENCODING;
use http_body::Body;
use serde_json::{Map, Value};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::forward::is_event_stream;
use super::sse::SseGuard;
use crate::error::ApiError;
use crate::request_log::{Record, Served};

/// A request on its way, with all that it needs.
pub(super) type Dispatching = Pin<Box<dyn Future<Output = Result<Dispatched, DispatchError>> + Send>>;

/// A comment now and then until the runner begins. Dropping it cancels the request.
pub(crate) struct Awaited {
    coming: Pin<Box<dyn Future<Output = Come> + Send>>,
    ticks: Interval,
    arrived: Instant,
}

/// What became of the request.
enum Come {
    Stream(Box<Dispatched>),
    /// The runner answered, but with no event stream.
    Other(Served, StatusCode, Bytes),
    Nothing(Box<ApiError>),
}

/// What a client reads next.
pub(crate) enum Heard {
    Comment(Bytes),
    /// The runner has begun.
    Stream(Box<SseGuard>),
    /// An error event: there is nothing more.
    LastWords(Bytes),
}

const COMMENT: &[u8] = b": waiting\n\n";

impl Awaited {
    /// The first comment is said at once.
    pub(super) fn new(dispatching: Dispatching, every: Duration, arrived: Instant) -> Self {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { coming: Box::pin(async { come(dispatching.await).await }), ticks, arrived }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, record: Option<&mut Record>) -> Poll<Heard> {
        let Poll::Ready(come) = self.coming.as_mut().poll(cx) else {
            return self.ticks.poll_tick(cx).map(|_| Heard::Comment(Bytes::from_static(COMMENT)));
        };
        Poll::Ready(match come {
            Come::Stream(answer) => {
                if let Some(record) = record {
                    record.served(Served::by(&answer), self.arrived);
                }
                Heard::Stream(Box::new(SseGuard::new(answer.response.into_body())))
            }
            Come::Other(served, status, words) => {
                if let Some(record) = record {
                    record.served(served, self.arrived);
                    record.outcome = Some(if status.is_success() { "not_streamed" } else { outcome(status) });
                }
                Heard::LastWords(words)
            }
            Come::Nothing(error) => {
                if let Some(record) = record {
                    record.failed(&error);
                }
                Heard::LastWords(error.event())
            }
        })
    }
}

async fn come(done: Result<Dispatched, DispatchError>) -> Come {
    let answer = match done {
        Ok(answer) => answer,
        Err(error) => return Come::Nothing(ApiError::dispatch(&error)),
    };
    let status = answer.response.status();
    let headers = answer.response.headers();
    // The head has gone out, and said nothing of an encoding.
    if status == StatusCode::OK && is_event_stream(headers) && !headers.contains_key(CONTENT_ENCODING) {
        return Come::Stream(Box::new(answer));
    }
    let served = Served::by(&answer);
    let words = match own_words(answer.response.into_body()).await.filter(|_| !status.is_success()) {
        Some(object) => ApiError::as_event(&object),
        None => ApiError::no_stream(status).event(),
    };
    Come::Other(served, status, words)
}

/// The runner's own error object, if its answer is one.
async fn own_words(body: DispatchBody) -> Option<Map<String, Value>> {
    const LONGEST: usize = 64 << 10;
    let mut body = std::pin::pin!(body);
    let mut words = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        words.extend_from_slice(frame.ok()?.data_ref().map_or(&[], |data| data));
        if words.len() > LONGEST {
            return None;
        }
    }
    let object: Map<String, Value> = serde_json::from_slice(&words).ok()?;
    object.contains_key("error").then_some(object)
}

/// The status that was not told is what the log would have gone by.
fn outcome(status: StatusCode) -> &'static str {
    match status.as_u16() {
        429 | 503 => "overloaded",
        500.. => "runner_fault_status",
        _ => "client_fault",
    }
}
