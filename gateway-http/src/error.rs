//! Failures as clients see them: OpenAI's error object, with the status, type and code that its client
//! libraries turn into their own exceptions.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use gateway_core::{DispatchError, DispatchErrorKind, Fault, Feature, RunnerId};
use http::header::{ALLOW, CONNECTION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode, Version};
use serde::Serialize;

use crate::admission::{Refused, RefusedKind};
use crate::auth::AuthError;
use crate::refusals;
use crate::respond::{BACKEND_USED, json};

/// A failure, ready to be told to the client. Always boxed: the way of success must not carry its size.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) reason: Reason,
    /// For the log only: it may name runners.
    pub(crate) detail: Option<String>,
    /// On how many runners the request was tried.
    pub(crate) tries: u32,
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<&'static str>,
    message: Cow<'static, str>,
    retry_after: Option<Duration>,
    close: bool,
    allow: Option<Cow<'static, str>>,
    /// The runner that failed last.
    pub(crate) runner: Option<RunnerId>,
}

/// Why a request was refused or failed: the label of `gateway_refused_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Unauthorized,
    Forbidden,
    AuthUnavailable,
    NotFound,
    MethodNotAllowed,
    BadRequest,
    BodyTooLarge,
    BodyTimeout,
    Admission,
    UnknownModel,
    Lacking,
    NoneEligible,
    Overloaded,
    QueueFull,
    QueueTimeout,
    ModelNotLoaded,
    Draining,
    RunnerFailed,
    Unreachable,
    Timeout,
    Upgrade,
    Internal,
}

impl Reason {
    pub(crate) const ALL: [Self; 22] = [
        Self::Unauthorized,
        Self::Forbidden,
        Self::AuthUnavailable,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::BadRequest,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::Admission,
        Self::UnknownModel,
        Self::Lacking,
        Self::NoneEligible,
        Self::Overloaded,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::ModelNotLoaded,
        Self::Draining,
        Self::RunnerFailed,
        Self::Unreachable,
        Self::Timeout,
        Self::Upgrade,
        Self::Internal,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::AuthUnavailable => "auth_unavailable",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BadRequest => "bad_request",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::Admission => "admission",
            Self::UnknownModel => "unknown_model",
            Self::Lacking => "lacking",
            Self::NoneEligible => "none_eligible",
            Self::Overloaded => "overloaded",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::ModelNotLoaded => "model_not_loaded",
            Self::Draining => "draining",
            Self::RunnerFailed => "runner_failed",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Upgrade => "upgrade",
            Self::Internal => "internal",
        }
    }
}

const INVALID: &str = "invalid_request_error";
const UPSTREAM: &str = "upstream_error";
const SERVER: &str = "server_error";

impl ApiError {
    fn new(
        reason: Reason,
        status: StatusCode,
        kind: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Box<Self> {
        Box::new(Self {
            reason,
            detail: None,
            tries: 0,
            status,
            kind,
            code: None,
            param: None,
            message: message.into(),
            retry_after: None,
            close: false,
            allow: None,
            runner: None,
        })
    }

    fn code(mut self: Box<Self>, code: &'static str) -> Box<Self> {
        self.code = Some(code);
        self
    }

    fn closing(mut self: Box<Self>) -> Box<Self> {
        self.close = true;
        self
    }

    fn retry_after(mut self: Box<Self>, wait: Option<Duration>) -> Box<Self> {
        self.retry_after = wait;
        self
    }

    pub(crate) fn not_found(path: &str) -> Box<Self> {
        let path: String = path.chars().take(200).collect();
        let message = format!("There is no route `{path}`. GET /v1/metadata lists those that there are.");
        Self::new(Reason::NotFound, StatusCode::NOT_FOUND, INVALID, message).code("unknown_url")
    }

    pub(crate) fn method_not_allowed(allow: impl Into<Cow<'static, str>>) -> Box<Self> {
        let allow = allow.into();
        let message = format!("This route takes {allow} only.");
        let mut error = Self::new(Reason::MethodNotAllowed, StatusCode::METHOD_NOT_ALLOWED, INVALID, message)
            .code("method_not_allowed");
        error.allow = Some(allow);
        error
    }

    pub(crate) fn auth(error: AuthError) -> Box<Self> {
        let message = error.to_string();
        if error.is_unavailable() {
            return Self::new(Reason::AuthUnavailable, StatusCode::SERVICE_UNAVAILABLE, SERVER, message)
                .code("auth_unavailable")
                .retry_after(Some(Duration::from_secs(5)));
        }
        if error.is_forbidden() {
            return Self::new(Reason::Forbidden, StatusCode::FORBIDDEN, INVALID, message).code("forbidden");
        }
        Self::new(Reason::Unauthorized, StatusCode::UNAUTHORIZED, INVALID, message).code("invalid_api_key")
    }

    pub(crate) fn admin_closed() -> Box<Self> {
        let message = "The admin API is switched off. Whoever runs the gateway switches it on by giving it \
                       admin tokens (`Gateway::builder().admin_tokens([..])`).";
        Self::new(Reason::Forbidden, StatusCode::FORBIDDEN, INVALID, message).code("admin_api_off")
    }

    pub(crate) fn bad_request(message: impl Into<Cow<'static, str>>) -> Box<Self> {
        Self::new(Reason::BadRequest, StatusCode::BAD_REQUEST, INVALID, message)
    }

    pub(crate) fn bad_param(param: &'static str, message: impl Into<Cow<'static, str>>) -> Box<Self> {
        let mut error = Self::bad_request(message);
        error.param = Some(param);
        error
    }

    pub(crate) fn body_too_large(limit: u64) -> Box<Self> {
        let message = format!("The request's body is larger than the {limit} bytes that are allowed.");
        Self::new(Reason::BodyTooLarge, StatusCode::PAYLOAD_TOO_LARGE, INVALID, message)
            .code("request_too_large")
            .closing()
    }

    pub(crate) fn body_timeout() -> Box<Self> {
        let message = "The request's body stood still for too long. Send it again.";
        Self::new(Reason::BodyTimeout, StatusCode::REQUEST_TIMEOUT, INVALID, message)
            .code("request_timeout")
            .closing()
    }

    pub(crate) fn unknown_model(model: &str) -> Box<Self> {
        let model: String = model.chars().take(200).collect();
        let message = format!("The model `{model}` does not exist here. GET /v1/models lists those that do.");
        let mut error =
            Self::new(Reason::UnknownModel, StatusCode::NOT_FOUND, INVALID, message).code("model_not_found");
        error.param = Some("model");
        error
    }

    /// A 400, because the same request fails again: a runner of another kind is needed, or another request.
    fn lacking(feature: Feature, what: &str) -> Box<Self> {
        let (field, words) = (feature.field(), feature.words());
        let message = format!(
            "No runner that serves {what} can do {words}, which `{field}` asks for. Leave it out, or name another model."
        );
        let mut error = Self::new(Reason::Lacking, StatusCode::BAD_REQUEST, INVALID, message)
            .code("unsupported_parameter");
        error.param = Some(field);
        error
    }

    pub(crate) fn draining() -> Box<Self> {
        Self::new(Reason::Draining, StatusCode::SERVICE_UNAVAILABLE, SERVER, "The gateway is shutting down.")
            .code("shutting_down")
            .retry_after(Some(Duration::from_secs(5)))
            .closing()
    }

    pub(crate) fn too_many_watchers(limit: usize) -> Box<Self> {
        let message = format!("There are {limit} readers of events already. Close one of them.");
        Self::new(Reason::Admission, StatusCode::TOO_MANY_REQUESTS, "requests", message)
            .code("rate_limit_exceeded")
    }

    pub(crate) fn refused(refused: Refused) -> Box<Self> {
        let Refused { kind, message, retry_after } = refused;
        let (status, kind, code) = match kind {
            RefusedKind::TooMany => (StatusCode::TOO_MANY_REQUESTS, "requests", "rate_limit_exceeded"),
            RefusedKind::QuotaUsedUp => {
                (StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", "insufficient_quota")
            }
            RefusedKind::Forbidden => (StatusCode::FORBIDDEN, INVALID, "forbidden"),
        };
        Self::new(Reason::Admission, status, kind, message).code(code).retry_after(retry_after)
    }

    /// What the dispatcher could not do. The client is told what it can do about it; which machines are to
    /// blame is for the log.
    pub(crate) fn dispatch(failed: &DispatchError) -> Box<Self> {
        use DispatchErrorKind as K;
        let what = match failed.model() {
            Some(model) => format!("the model `{model}`"),
            None => "such requests".to_owned(),
        };
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let error = match failed.kind() {
            K::UnknownModel => Self::unknown_model(failed.model().map_or("", |model| model.as_str())),
            K::Lacking(feature) => Self::lacking(feature, &what),
            K::NoneEligible => {
                let counted = refusals::counted(failed.refusals());
                let colon = if counted.is_empty() { "" } else { ": " };
                let message =
                    format!("No runner can serve {what} at the moment{colon}{counted}. Try again later.");
                Self::new(Reason::NoneEligible, status, SERVER, message).code("no_runner_available")
            }
            K::Overloaded => {
                let message = format!("Every runner that serves {what} is full. Try again soon.");
                // The SDKs make their RateLimitError of the status alone.
                Self::new(Reason::Overloaded, StatusCode::TOO_MANY_REQUESTS, "overloaded_error", message)
                    .code("overloaded")
            }
            K::QueueFull => {
                let message = format!(
                    "Every runner that serves {what} is full, and too many wait already. Try again later."
                );
                Self::new(Reason::QueueFull, StatusCode::TOO_MANY_REQUESTS, "overloaded_error", message)
                    .code("queue_full")
            }
            K::QueueTimeout => {
                let message = format!("No runner that serves {what} became free in time. Try again later.");
                Self::new(Reason::QueueTimeout, status, "overloaded_error", message).code("queue_timeout")
            }
            K::ModelNotLoaded => {
                let model = failed.model().map_or("", |model| model.as_str());
                let message = format!("The model `{model}` could not be loaded. Try again later.");
                Self::new(Reason::ModelNotLoaded, status, SERVER, message).code("model_load_failed")
            }
            K::Draining => Self::draining(),
            K::RunnerFailed(Fault::FirstByteTimeout) => {
                let message = "The runner did not begin to answer in time. Try again, or ask for less.";
                Self::new(Reason::Timeout, StatusCode::GATEWAY_TIMEOUT, UPSTREAM, message)
                    .code("upstream_timeout")
            }
            K::RunnerFailed(_) => {
                let message = "The runner failed before it began to answer. Try again.";
                Self::new(Reason::RunnerFailed, StatusCode::BAD_GATEWAY, UPSTREAM, message)
                    .code("upstream_failed")
            }
            K::Unreachable => {
                let message = format!("No runner that serves {what} can be reached. Try again.");
                Self::new(Reason::Unreachable, StatusCode::BAD_GATEWAY, UPSTREAM, message)
                    .code("upstream_unreachable")
            }
            K::Deadline => {
                let message = "The time for the whole request was up before an answer began.";
                Self::new(Reason::Timeout, StatusCode::GATEWAY_TIMEOUT, UPSTREAM, message)
                    .code("deadline_exceeded")
            }
            K::RequestBody => Self::bad_request("The request's body broke off."),
            K::Unsupported => Self::cannot_upgrade(
                "No runner of this route can be reached in a way that lets a connection change to another protocol.",
            ),
            _ => Self::new(
                Reason::Internal,
                StatusCode::INTERNAL_SERVER_ERROR,
                SERVER,
                "The gateway failed. Its log knows more under the request id.",
            )
            .code("internal_error"),
        };
        let mut error = error.retry_after(failed.retry_after());
        error.runner = failed.runner().cloned();
        error.detail = Some(describe(failed));
        error.tries = failed.tries();
        error
    }

    /// Full is full, whoever is asked: 429 means to OpenAI's clients that *they* ask too much.
    pub(crate) fn without_capacity(mut self: Box<Self>) -> Box<Self> {
        if matches!(self.reason, Reason::Overloaded | Reason::QueueFull) {
            self.status = StatusCode::SERVICE_UNAVAILABLE;
        }
        self
    }

    fn cannot_upgrade(message: &'static str) -> Box<Self> {
        Self::new(Reason::Upgrade, StatusCode::NOT_IMPLEMENTED, SERVER, message)
            .code("upgrade_not_supported")
            .closing()
    }

    pub(crate) fn no_upgrades_here() -> Box<Self> {
        Self::cannot_upgrade(
            "This route does not let connections change to another protocol. Whoever runs the gateway can allow it \
             (`GenericRoute::upgrades`, or `upgrade: true` in the operation's `x-gateway`).",
        )
    }

    pub(crate) fn host_cannot_upgrade() -> Box<Self> {
        Self::cannot_upgrade(
            "The gateway's server does not let connections change to another protocol; with hyper, serve them \
             `with_upgrades`.",
        )
    }

    pub(crate) fn too_many_upgraded(limit: usize) -> Box<Self> {
        let message = format!("There are {limit} connections of other protocols already. Try again later.");
        Self::new(Reason::Upgrade, StatusCode::SERVICE_UNAVAILABLE, SERVER, message)
            .code("too_many_upgrades")
            .retry_after(Some(Duration::from_secs(5)))
    }

    pub(crate) fn changed_unasked() -> Box<Self> {
        let message = "The runner changed to another protocol without being asked.";
        Self::new(Reason::RunnerFailed, StatusCode::BAD_GATEWAY, UPSTREAM, message).code("upstream_failed")
    }

    /// A runner answered where an event stream was expected that has begun already.
    pub(crate) fn no_stream(status: StatusCode) -> Box<Self> {
        let message = if status.is_success() {
            "The runner's answer is no event stream.".into()
        } else {
            format!("The runner answered with the status {}.", status.as_u16())
        };
        Self::new(Reason::RunnerFailed, status, UPSTREAM, message).code("upstream_failed")
    }

    /// The last event of a stream that had begun.
    pub(crate) fn event(&self) -> Bytes {
        Self::as_event(&self.object())
    }

    /// Any error object as the last event of a stream.
    pub(crate) fn as_event(object: &impl Serialize) -> Bytes {
        // Only maps with keys that are no strings can fail, and there are none. JSON without spaces has no
        // line breaks, so the data is one line.
        let json = serde_json::to_string(object).unwrap_or_default();
        format!("data: {json}\n\ndata: [DONE]\n\n").into()
    }

    fn object(&self) -> Object<'_> {
        let Self { kind, code, param, message, .. } = self;
        Object { error: Inner { message, r#type: kind, param: *param, code: *code } }
    }

    pub(crate) fn into_response(self, version: Version) -> Response<Bytes> {
        let mut response = json(self.status, &self.object());
        let Self { status, retry_after, close, allow, runner, .. } = self;
        let headers = response.headers_mut();
        if let Some(wait) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds(wait)));
        }
        if let Some(allow) = allow {
            // Methods are tokens, which every header can hold.
            headers.extend(HeaderValue::from_str(&allow).map(|allow| (ALLOW, allow)));
        }
        if let Some(runner) = runner.and_then(|id| HeaderValue::from_bytes(id.as_str().as_bytes()).ok()) {
            headers.insert(BACKEND_USED, runner);
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // HTTP/2 knows no such header.
        if close && version <= Version::HTTP_11 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[derive(Serialize)]
struct Object<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

/// Whole seconds, rounded up, at least one: a client that comes back too early is refused again.
fn seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

fn describe(failed: &DispatchError) -> String {
    use std::fmt::Write;
    let mut text = failed.to_string();
    let mut source = std::error::Error::source(failed);
    while let Some(cause) = source {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    for (runner, refusal) in failed.refusals() {
        let _ = write!(text, "; {runner} {refusal}");
    }
    text
}
