//! From a request of the contract to one of the OpenAI API.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use http_body_util::Full;
use serde::Serialize;
use tonic::Status;

use super::caller::Caller;
use crate::contract::{GenerationParameters, StreamMetadata, StreamPredictRequest};

const PRIORITY: HeaderName = HeaderName::from_static("x-priority");
const WORKER_HINT: HeaderName = HeaderName::from_static("x-worker-hint");

/// What becomes of a request's prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PromptAs {
    /// It is completed as it is: `POST /v1/completions`. Whoever speaks the contract has made it with the
    /// template that the model wants.
    #[default]
    Completion,
    /// It is what a user says: one message of `POST /v1/chat/completions`, and the runner's own chat template
    /// makes the prompt of it.
    Chat,
}

impl PromptAs {
    fn uri(self) -> Uri {
        Uri::from_static(match self {
            Self::Completion => "/v1/completions",
            Self::Chat => "/v1/chat/completions",
        })
    }
}

/// What holds for parameters that are not set: what the contract says.
mod defaults {
    pub(super) const MAX_NEW_TOKENS: u32 = 256;
    pub(super) const TEMPERATURE: f64 = 0.7;
    pub(super) const TOP_P: f64 = 0.9;
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<[Message<'a>; 1]>,
    stream: bool,
    stream_options: StreamOptions,
    max_tokens: u32,
    temperature: f64,
    top_p: f64,
    /// As vLLM, SGLang and TGI call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    repetition_penalty: Option<f64>,
    /// As llama.cpp calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    repeat_penalty: Option<f64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    adapter: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    user: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'a str,
    content: &'a str,
}

/// The figure that the last message's rate needs. Engines that do not know it leave it out.
#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

/// The same request for the gateway's HTTP service.
///
/// # Errors
/// A parameter is not a number.
pub(super) fn to_http(
    asked: &StreamPredictRequest,
    caller: &Caller,
    prompt_as: PromptAs,
) -> Result<Request<Full<Bytes>>, Status> {
    let none = StreamMetadata::default();
    let metadata = asked.metadata.as_ref().unwrap_or(&none);
    let body = body(asked, metadata, prompt_as)?;
    let mut request = caller.request(Method::POST, prompt_as.uri(), &metadata.trace_id, body);
    let headers = request.headers_mut();
    match asked.priority {
        0 => {}
        1.. => {
            headers.insert(PRIORITY, HeaderValue::from_static("high"));
        }
        _ => {
            headers.insert(PRIORITY, HeaderValue::from_static("low"));
        }
    }
    if !asked.worker_hint.is_empty() {
        let hint = HeaderValue::from_str(&asked.worker_hint).map_err(|_| {
            Status::invalid_argument("The field `worker_hint` must be text without control characters.")
        })?;
        headers.insert(WORKER_HINT, hint);
    }
    Ok(request)
}

fn body(
    asked: &StreamPredictRequest,
    metadata: &StreamMetadata,
    prompt_as: PromptAs,
) -> Result<Bytes, Status> {
    let set = asked.generation.unwrap_or_default();
    let GenerationParameters { max_new_tokens, temperature, top_p, repetition_penalty } = set;
    let penalty = Some(number("repetition_penalty", repetition_penalty)?).filter(|penalty| *penalty != 0.0);
    let mut told: BTreeMap<_, _> =
        metadata.extra.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    for (key, value) in [("tenant", &metadata.tenant), ("locale", &metadata.locale)] {
        if !value.is_empty() {
            told.insert(key, value);
        }
    }
    let is_chat = prompt_as == PromptAs::Chat;
    let body = Body {
        model: &asked.model_id,
        prompt: (!is_chat).then_some(&asked.prompt),
        messages: is_chat.then_some([Message { role: "user", content: &asked.prompt }]),
        stream: true,
        stream_options: StreamOptions { include_usage: true },
        max_tokens: if max_new_tokens == 0 { defaults::MAX_NEW_TOKENS } else { max_new_tokens },
        temperature: or(number("temperature", temperature)?, defaults::TEMPERATURE),
        top_p: or(number("top_p", top_p)?, defaults::TOP_P),
        repetition_penalty: penalty,
        repeat_penalty: penalty,
        adapter: &asked.adapter,
        user: &metadata.player_id,
        metadata: told,
    };
    // Room for the fields and for some line breaks, which take two bytes.
    let mut json = Vec::with_capacity(asked.prompt.len() + asked.prompt.len() / 16 + 512);
    // Only maps with keys that are no strings can fail, and there are none.
    serde_json::to_writer(&mut json, &body).map_err(|error| Status::internal(error.to_string()))?;
    Ok(json.into())
}

/// Zero means that nothing was set.
fn or(value: f64, default: f64) -> f64 {
    if value == 0.0 { default } else { value }
}

fn number(field: &str, value: f64) -> Result<f64, Status> {
    if value.is_finite() {
        return Ok(value);
    }
    Err(Status::invalid_argument(format!("The field `generation.{field}` must be a number, not {value}.")))
}
