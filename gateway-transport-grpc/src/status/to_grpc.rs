//! What the gateway says in HTTP's terms, in those of gRPC.

use std::time::Duration;

use http::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use http::{HeaderName, StatusCode};
use serde_json::Value;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest message that is passed on: many clients take no more than 8 KiB of trailers together.
const LONGEST_MESSAGE: usize = 1024;

/// When to come back if nobody said: who is overloaded is so for moments.
const SOON: Duration = Duration::from_secs(1);

/// Why a request failed: an answer of the gateway that is no success, or an error event in the middle of one.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    /// `None` in the middle of an answer that had begun as a success.
    pub(crate) status: Option<StatusCode>,
    /// OpenAI's `type`.
    kind: String,
    code: String,
    message: String,
    retry_after: Option<Duration>,
    request_id: Option<HeaderValue>,
}

impl Failure {
    /// Of an answer's head and as much of its body as was read.
    pub(crate) fn of_answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Self {
            status: Some(status),
            retry_after: seconds.map(Duration::from_secs),
            request_id: headers.get(&REQUEST_ID).cloned(),
            ..serde_json::from_slice(body).map(|told| Self::told(&told)).unwrap_or_default()
        }
    }

    /// Of an event that holds an error.
    pub(crate) fn of_event(data: &[u8]) -> Self {
        serde_json::from_slice(data).map(|told| Self::told(&told)).unwrap_or_default()
    }

    /// The error object of OpenAI's API, or whatever of it there is: engines have their own ideas of it.
    fn told(object: &Value) -> Self {
        let error = &object["error"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let number = error["code"].as_u64().and_then(|number| u16::try_from(number).ok());
        Self {
            status: number.and_then(|number| StatusCode::from_u16(number).ok()),
            kind: text(&error["type"]),
            code: text(&error["code"]),
            message: text(if error.is_string() { error } else { &error["message"] }),
            ..Self::default()
        }
    }

    /// As the client hears of it: with the gateway's own words, and when to come back.
    pub(crate) fn into_status(self) -> Status {
        let code = self.grpc_code();
        let mut metadata = MetadataMap::new();
        if let Some(id) = &self.request_id {
            metadata.as_mut().insert(REQUEST_ID, id.clone());
        }
        let is_overload = code == Code::ResourceExhausted && self.code != "insufficient_quota";
        let retry_after = self.retry_after.or(is_overload.then_some(SOON));
        let message = self.words();
        let Some(wait) = retry_after else { return Status::with_metadata(code, message, metadata) };
        metadata.as_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        let details = ErrorDetails::with_retry_info(Some(wait));
        Status::with_error_details_and_metadata(code, message, details, metadata)
    }

    fn words(&self) -> String {
        if !self.message.is_empty() {
            return self.message.chars().take(LONGEST_MESSAGE).collect();
        }
        match self.status {
            Some(status) => format!("The gateway answered with the HTTP status {status} and no message."),
            None => "The runner ended its answer with an error and no message.".to_owned(),
        }
    }

    fn grpc_code(&self) -> Code {
        // The gateway's own codes say more than a status: 503 is also that of a queue that was too long.
        match self.code.as_str() {
            "overloaded" | "queue_full" | "queue_timeout" | "rate_limit_exceeded" | "insufficient_quota" => {
                return Code::ResourceExhausted;
            }
            _ => {}
        }
        match self.status {
            Some(status) => of_http(status),
            None => self.of_event_words(),
        }
    }

    /// An error event has no status of its own.
    fn of_event_words(&self) -> Code {
        match (self.code.as_str(), self.kind.as_str()) {
            ("model_not_found", _) => Code::NotFound,
            ("upstream_timeout" | "deadline_exceeded", _) => Code::DeadlineExceeded,
            ("invalid_api_key", _) => Code::Unauthenticated,
            ("forbidden", _) => Code::PermissionDenied,
            ("upstream_failed" | "upstream_unreachable" | "shutting_down" | "no_runner_available", _) => {
                Code::Unavailable
            }
            (_, "overloaded_error") => Code::ResourceExhausted,
            (_, "invalid_request_error") => Code::InvalidArgument,
            (_, "upstream_error") => Code::Unavailable,
            _ => Code::Internal,
        }
    }
}

/// The status of gRPC that says what this one of HTTP does.
pub(crate) fn of_http(status: StatusCode) -> Code {
    match status.as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        408 | 504 => Code::DeadlineExceeded,
        409 => Code::Aborted,
        429 => Code::ResourceExhausted,
        499 => Code::Cancelled,
        501 => Code::Unimplemented,
        502 | 503 => Code::Unavailable,
        400..=498 => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Status {
        let status = StatusCode::from_u16(status).unwrap();
        Failure::of_answer(status, &HeaderMap::new(), body.as_bytes()).into_status()
    }

    #[test]
    fn each_status_has_its_counterpart() {
        for (http, grpc) in [
            (400, Code::InvalidArgument),
            (413, Code::InvalidArgument),
            (422, Code::InvalidArgument),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::NotFound),
            (408, Code::DeadlineExceeded),
            (504, Code::DeadlineExceeded),
            (429, Code::ResourceExhausted),
            (499, Code::Cancelled),
            (500, Code::Internal),
            (501, Code::Unimplemented),
            (502, Code::Unavailable),
            (503, Code::Unavailable),
        ] {
            assert_eq!(answer(http, "{}").code(), grpc, "{http}");
        }
    }

    #[test]
    fn a_full_queue_is_overload_whatever_its_status() {
        let status = answer(503, r#"{"error":{"message":"too long","code":"queue_timeout"}}"#);
        assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "too long"));
        let wait = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
        assert_eq!(wait, Some(SOON), "overload always says when to come back");
        let quota = answer(429, r#"{"error":{"message":"used up","code":"insufficient_quota"}}"#);
        assert_eq!(quota.code(), Code::ResourceExhausted);
        assert!(quota.get_error_details().retry_info().is_none(), "waiting a moment does not help");
    }

    #[test]
    fn what_the_gateway_says_of_time_and_request_goes_along() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        headers.insert(REQUEST_ID, HeaderValue::from_static("req-1"));
        let status = Failure::of_answer(StatusCode::SERVICE_UNAVAILABLE, &headers, b"no JSON").into_status();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.metadata().get("retry-after").unwrap(), "7");
        assert_eq!(status.metadata().get("x-request-id").unwrap(), "req-1");
        let wait = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
        assert_eq!(wait, Some(Duration::from_secs(7)));
        assert!(status.message().contains("503"));
    }

    #[test]
    fn events_are_told_by_their_words() {
        let code = |event: &str| Failure::of_event(event.as_bytes()).into_status().code();
        assert_eq!(
            code(r#"{"error":{"message":"m","type":"upstream_error","code":null}}"#),
            Code::Unavailable
        );
        assert_eq!(code(r#"{"error":{"message":"m","code":"model_not_found"}}"#), Code::NotFound);
        assert_eq!(code(r#"{"error":{"message":"m","code":"queue_full"}}"#), Code::ResourceExhausted);
        assert_eq!(code(r#"{"error":{"message":"m","code":400}}"#), Code::InvalidArgument);
        assert_eq!(code(r#"{"error":"just words"}"#), Code::Internal);
        assert_eq!(code("no JSON"), Code::Internal);
    }

    #[test]
    fn a_message_fits_into_the_trailers() {
        let long = format!(r#"{{"error":{{"message":"{}"}}}}"#, "é".repeat(100_000));
        assert_eq!(answer(500, &long).message().chars().count(), LONGEST_MESSAGE);
    }
}
