//! How the model is to write.

use gateway_core::Feature;
use serde_json::Value;

use super::Refusal;
use super::fields::Fields;
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

/// Fields that change what the answer is and have no place in the contract. The last line of defence: the
/// router sends such requests elsewhere if it can.
pub(super) fn refuse_what_has_no_place(fields: &Fields<'_>) -> Result<(), Refusal> {
    for feature in Feature::ALL {
        let json = fields.raw(feature.field());
        let asked = match feature {
            // Read where the text is, and cut on this side.
            Feature::Media | Feature::Embeddings | Feature::PromptList | Feature::Stop => false,
            Feature::ManyAnswers | Feature::BestOf => {
                fields.get::<u64>(feature.field())?.is_some_and(|many| many > 1)
            }
            Feature::ResponseFormat => json.is_some_and(|json| !is_plain(json)),
            _ => json.is_some_and(says_something),
        };
        if asked {
            return Err(Refusal::unsupported(feature.field(), feature.words()));
        }
    }
    if fields.get::<u64>("top_logprobs")?.is_some_and(|many| many > 0) {
        return Err(Refusal::unsupported("top_logprobs", Feature::Logprobs.words()));
    }
    if fields.get::<Vec<String>>("modalities")?.is_some_and(|all| all.iter().any(|one| one != "text")) {
        return Err(Refusal::unsupported("modalities", Feature::Audio.words()));
    }
    if fields.raw("web_search_options").is_some() {
        return Err(Refusal::unsupported("web_search_options", "searching"));
    }
    Ok(())
}

/// Libraries send fields that are empty, or say no.
fn says_something(json: &str) -> bool {
    let is_empty = |open, close| {
        let inner = json.strip_prefix(open).and_then(|rest: &str| rest.strip_suffix(close));
        inner.is_some_and(|inner| inner.trim_ascii().is_empty())
    };
    !matches!(json, "false" | r#""""#) && !is_empty('[', ']') && !is_empty('{', '}')
}

/// Whether a form of answers is what they have without.
fn is_plain(json: &str) -> bool {
    let form = serde_json::from_str::<Value>(json).unwrap_or_default();
    form.get("type").and_then(Value::as_str) == Some("text")
}
