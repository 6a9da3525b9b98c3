//! How the model is to write.

use serde_json::Value;

use super::fields::Fields;
use super::{Api, Refusal};
use crate::contract::GenerationParameters;

/// The contract's own defaults.
const MAX_TOKENS: u32 = 256;
const TEMPERATURE: f64 = 0.7;
const TOP_P: f64 = 0.9;
const REPETITION_PENALTY: f64 = 1.0;

/// What stands for a temperature of zero, which is "not set" on the wire: with [`GREEDY_TOP_P`] the likeliest
/// token is the only one left, whatever the temperature, and logits that are divided by a hundredth do not yet
/// overflow in half precision (vLLM's smallest temperature, `_MAX_TEMP`, for the same reason).
const GREEDY_TEMPERATURE: f64 = 0.01;
/// What stands for a `top_p` of zero.
const GREEDY_TOP_P: f64 = 1e-6;

/// The most stop sequences, as in OpenAI's API.
const MAX_STOPS: usize = 4;
/// The longest stop sequence in bytes: as much of an answer may be held back until it is known.
const LONGEST_STOP: usize = 1024;

pub(super) fn generation(fields: &Fields<'_>) -> Result<GenerationParameters, Refusal> {
    let mut most = None;
    for name in ["max_completion_tokens", "max_tokens"] {
        let told = fields.get::<u32>(name)?;
        if told == Some(0) {
            return Err(Refusal::invalid(name, format!("The field `{name}` must be at least 1.")));
        }
        most = most.or(told);
    }
    let temperature = number(fields, "temperature", 0.0, 100.0)?;
    let top_p = number(fields, "top_p", 0.0, 1.0)?;
    let penalty = number(fields, "repetition_penalty", f64::MIN_POSITIVE, 100.0)?;
    let greedy = temperature == Some(0.0);
    Ok(GenerationParameters {
        max_new_tokens: most.unwrap_or(MAX_TOKENS),
        temperature: if greedy { GREEDY_TEMPERATURE } else { temperature.unwrap_or(TEMPERATURE) },
        top_p: match top_p {
            _ if greedy => GREEDY_TOP_P,
            Some(0.0) => GREEDY_TOP_P,
            top_p => top_p.unwrap_or(TOP_P),
        },
        repetition_penalty: penalty.unwrap_or(REPETITION_PENALTY),
    })
}

fn number(fields: &Fields<'_>, name: &str, least: f64, most: f64) -> Result<Option<f64>, Refusal> {
    let number = fields.get::<f64>(name)?;
    match number {
        Some(out) if !(least..=most).contains(&out) => {
            let from = if least > 0.0 { "above 0" } else { "at least 0" };
            Err(Refusal::invalid(name, format!("The field `{name}` must be {from} and at most {most}.")))
        }
        fine => Ok(fine),
    }
}

/// Where the answer is to end. The contract has no field for it: it is cut on this side.
pub(super) fn stop(fields: &Fields<'_>) -> Result<Vec<String>, Refusal> {
    let Some(json) = fields.raw("stop") else { return Ok(Vec::new()) };
    let stops = if json.starts_with('"') {
        vec![fields.text("stop")?]
    } else {
        fields.get("stop")?.unwrap_or_default()
    };
    if stops.len() > MAX_STOPS || stops.iter().any(|stop: &String| stop.len() > LONGEST_STOP) {
        let message = format!("The field `stop` takes {MAX_STOPS} strings of {LONGEST_STOP} bytes at most.");
        return Err(Refusal::invalid("stop", message));
    }
    Ok(stops.into_iter().filter(|stop| !stop.is_empty()).collect())
}

/// Fields that change what the answer means and have no place in the contract. The last line of defence: a
/// router that knows of them sends such requests elsewhere.
pub(super) fn refuse_what_has_no_place(fields: &Fields<'_>, api: Api) -> Result<(), Refusal> {
    let value = |name: &str| fields.get::<Value>(name);
    let refuse = |name: &str, what: &str| Err(Refusal::unsupported(name, what));
    for (name, what) in [("tools", "tools"), ("functions", "functions"), ("logit_bias", "biased tokens")] {
        if value(name)?.is_some_and(|value| !is_empty(&value)) {
            return refuse(name, what);
        }
    }
    for name in ["tool_choice", "function_call"] {
        if value(name)?.is_some_and(|value| !matches!(value.as_str(), Some("none" | "auto"))) {
            return refuse(name, "tools");
        }
    }
    for name in ["n", "best_of"] {
        if value(name)?.is_some_and(|value| value != 1) {
            return refuse(name, "several answers to one request");
        }
    }
    for name in ["frequency_penalty", "presence_penalty"] {
        if value(name)?.is_some_and(|value| value.as_f64() != Some(0.0)) {
            return refuse(name, "this penalty; `repetition_penalty` is what it has");
        }
    }
    if value("top_logprobs")?.is_some_and(|value| value != 0) {
        return refuse("top_logprobs", "probabilities");
    }
    // A yes or no in the one API, a count in the other, where 0 is one.
    let unasked = |value: &Value| *value == Value::Bool(false);
    if value("logprobs")?.is_some_and(|value| !unasked(&value)) {
        return refuse("logprobs", "probabilities");
    }
    let is_text = |value: &Value| value.get("type").and_then(Value::as_str) == Some("text");
    if value("response_format")?.is_some_and(|value| !is_text(&value)) {
        return refuse("response_format", "answers in a given format");
    }
    if value("modalities")?.is_some_and(|value| value != serde_json::json!(["text"])) {
        return refuse("modalities", "anything but text");
    }
    for (name, what) in [("audio", "audio"), ("web_search_options", "searching")] {
        if value(name)?.is_some() {
            return refuse(name, what);
        }
    }
    if api == Api::Completion {
        if value("echo")?.is_some_and(|value| !unasked(&value)) {
            return refuse("echo", "repeating the prompt");
        }
        if value("suffix")?.is_some_and(|value| value != "") {
            return refuse("suffix", "filling in before a given end");
        }
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
        _ => false,
    }
}
