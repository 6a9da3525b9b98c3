use gateway_core::LinkResponse;
use http::StatusCode;

use crate::status::to_http;

/// A request that is not sent to the worker, and why: what the client gets instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The field that is to blame.
    pub(crate) param: Option<String>,
    pub(crate) code: Option<&'static str>,
}

impl Refusal {
    pub(super) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let param = Some(param.into()).filter(|param| !param.is_empty());
        Self { status: StatusCode::BAD_REQUEST, message: message.into(), param, code: None }
    }

    /// There is no place for it in the contract.
    pub(super) fn unsupported(param: impl Into<String>, what: &str) -> Self {
        let param = param.into();
        let message = format!("The model's runner cannot do {what}: leave out `{param}`.");
        Self { code: Some("unsupported_parameter"), ..Self::invalid(param, message) }
    }

    /// The contract has nothing but text for text. Another runner may have more.
    pub(crate) fn elsewhere(path: &str) -> Self {
        let message = format!(
            "The model's runner has no {path}: it serves POST to /v1/chat/completions and /v1/completions."
        );
        Self { status: StatusCode::NOT_IMPLEMENTED, ..Self::invalid("", message) }
    }

    pub(crate) fn too_long(limit: usize) -> Self {
        let message = format!("The request is longer than the {limit} bytes that the model's runner takes.");
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, ..Self::invalid("", message) }
    }

    pub(crate) fn into_answer(self) -> LinkResponse {
        to_http::error(self.status, &self.message, self.param.as_deref(), self.code)
    }
}
