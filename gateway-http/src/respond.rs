//! Answers that the gateway gives by itself.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const BACKEND_USED: HeaderName = HeaderName::from_static("x-backend-used");
pub(crate) const MODEL_USED: HeaderName = HeaderName::from_static("x-model-used");
pub(crate) const ROUTER_REASON: HeaderName = HeaderName::from_static("x-router-reason");

pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<Bytes> {
    // Only maps with keys that are no strings can fail, and there are none.
    let body = serde_json::to_vec(value).unwrap_or_default();
    with_type(status, "application/json", body.into())
}

pub(crate) fn with_type(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
