//! An OpenAI request as the contract's.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gateway_core::{Claim, Priority, RequestId};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use super::fields::Fields;
use super::parameters::{self, refuse_what_has_no_place};
use super::{Label, PromptTemplate, Refusal, messages};
use crate::contract::{StreamMetadata, StreamPredictRequest};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PRIORITY: HeaderName = HeaderName::from_static("x-priority");
const WORKER_HINT: HeaderName = HeaderName::from_static("x-worker-hint");
const TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completion,
}

/// What holds for requests that do not say it.
pub(crate) struct Defaults<'a> {
    pub(crate) template: &'a PromptTemplate,
    pub(crate) adapter: &'a str,
}

/// A request that can be sent.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: StreamPredictRequest,
    /// How long the client waits for all of it.
    pub(crate) timeout: Option<Duration>,
    pub(crate) label: Label,
    pub(crate) streams: bool,
    pub(crate) wants_usage: bool,
    pub(crate) stop: Vec<String>,
}

/// Reads a request, or says what of it cannot be carried.
pub(crate) fn asked(
    api: Api,
    headers: &HeaderMap,
    claim: Option<&Claim>,
    body: &[u8],
    defaults: &Defaults<'_>,
) -> Result<Asked, Refusal> {
    let mut fields = Fields::parse(body)?;
    let model = fields.text("model")?;
    if model.is_empty() {
        return Err(Refusal::invalid("model", "The field `model` is missing."));
    }
    refuse_what_has_no_place(&fields)?;
    let prompt = match api {
        Api::Chat => defaults.template.render(&messages::turns(&mut fields)?)?,
        Api::Completion => messages::prompt(&fields)?,
    };
    let streams = fields.get("stream")?.unwrap_or(false);
    let options = fields.get::<StreamOptions>("stream_options")?.unwrap_or_default();
    let id = text(headers, &REQUEST_ID).map_or_else(|| RequestId::random().to_string(), str::to_owned);
    let request = StreamPredictRequest {
        prompt,
        adapter: adapter(&fields, defaults)?,
        priority: priority(headers, claim),
        generation: Some(parameters::generation(&fields)?),
        metadata: Some(metadata(&fields, claim, &id)?),
        worker_hint: match fields.text("worker_hint")? {
            none if none.is_empty() => text(headers, &WORKER_HINT).unwrap_or_default().to_owned(),
            hint => hint,
        },
        model_id: model.clone(),
    };
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(Asked {
        request,
        timeout: text(headers, &TIMEOUT)
            .and_then(|millis| millis.parse().ok())
            .filter(|millis| *millis > 0)
            .map(Duration::from_millis),
        label: Label { api, id, model, created },
        streams,
        wants_usage: streams && options.include_usage.unwrap_or(false),
        stop: parameters::stop(&fields)?,
    })
}

#[derive(Deserialize, Default)]
struct StreamOptions {
    include_usage: Option<bool>,
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty())
}

/// The extension field `adapter`, or `lora`, which others call it.
fn adapter(fields: &Fields<'_>, defaults: &Defaults<'_>) -> Result<String, Refusal> {
    for name in ["adapter", "lora"] {
        let adapter = fields.text(name)?;
        if !adapter.is_empty() {
            return Ok(adapter);
        }
    }
    Ok(defaults.adapter.to_owned())
}

/// The contract only says that 0 is the default: above is more urgent here, below less. What the gateway has
/// granted goes before what the client asks for.
fn priority(headers: &HeaderMap, claim: Option<&Claim>) -> i32 {
    let asked = || text(headers, &PRIORITY).and_then(|word| word.parse().ok());
    match claim.map(|claim| claim.priority).or_else(asked).unwrap_or_default() {
        Priority::High => 1,
        Priority::Normal => 0,
        Priority::Low => -1,
    }
}

/// The tenant is the one that the gateway knows, whatever the client says. `metadata` goes into `extra`, its `locale` into the field of that name, `user` into `player_id`.
fn metadata(fields: &Fields<'_>, claim: Option<&Claim>, id: &str) -> Result<StreamMetadata, Refusal> {
    let told: HashMap<String, Value> = fields.get("metadata")?.unwrap_or_default();
    let mut extra: HashMap<String, String> = told
        .into_iter()
        .map(|(key, value)| match value {
            Value::String(text) => (key, text),
            other => (key, other.to_string()),
        })
        .collect();
    let tenant = claim.and_then(|claim| claim.tenant.as_ref());
    Ok(StreamMetadata {
        trace_id: id.to_owned(),
        tenant: tenant.map(|tenant| tenant.as_str().to_owned()).unwrap_or_default(),
        player_id: fields.text("user")?,
        locale: extra.remove("locale").unwrap_or_default(),
        extra,
    })
}

/// gRPC has room for eight digits; what is longer is said in seconds.
pub(crate) fn grpc_timeout(timeout: Duration) -> Option<HeaderValue> {
    let text = match timeout.as_millis() {
        few if few <= 99_999_999 => format!("{few}m"),
        many => format!("{}S", (many / 1000).min(99_999_999)),
    };
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
