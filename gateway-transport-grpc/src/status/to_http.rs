//! A worker's status as an HTTP answer in OpenAI's form.

use std::time::Duration;

use gateway_core::{LinkBody, LinkResponse};
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use tonic::Code;

use super::WorkerStatus;

/// The HTTP status for a gRPC one, as `google/rpc/code.proto` has them; two differ. A call that the worker
/// cancelled by itself is one that another may do (503): nobody on our side left. What it calls unknown is 500.
pub(crate) fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable | Code::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Internal | Code::Unknown | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The worker's own words under the status that they mean.
pub(crate) fn answer(status: &WorkerStatus) -> LinkResponse {
    let message = match status.message.as_str() {
        "" => status.code.description(),
        words => words,
    };
    let http = http_status(status.code);
    let mut answer = error(http, message, None, Some(name(status.code)));
    if matches!(http, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
        && let Some(delay) = status.retry_after
    {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(delay)));
    }
    answer
}

/// Never less than was asked for.
fn whole_seconds(delay: Duration) -> u64 {
    delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0))
}

/// An error object as OpenAI's API has it.
pub(crate) fn error(
    status: StatusCode,
    message: &str,
    param: Option<&str>,
    code: Option<&'static str>,
) -> LinkResponse {
    #[derive(Serialize)]
    struct Envelope<'a> {
        error: Object<'a>,
    }
    #[derive(Serialize)]
    struct Object<'a> {
        message: &'a str,
        #[serde(rename = "type")]
        kind: &'static str,
        param: Option<&'a str>,
        code: Option<&'static str>,
    }
    let kind = match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "server_error",
    };
    let body = serde_json::to_vec(&Envelope { error: Object { message, kind, param, code } });
    let mut answer = Response::new(LinkBody::full(body.unwrap_or_default()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}
