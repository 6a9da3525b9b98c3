//! How much work a request is, as far as it says so itself.

use std::time::Duration;

use gateway_core::{Priority, PromptBlocks, Workload};
use http::header::{HeaderMap, HeaderValue};

use super::fields::{Fields, Prompt};
use super::hash::hash;
use super::prompt::{self, PromptHashing};
use crate::auth::Identity;
use crate::error::ApiError;
use crate::route::Inference;

/// Names the conversation, so that it comes back to where it was.
const SESSION: &str = "x-session-id";
/// `high`, `normal` or `low`.
const PRIORITY: &str = "x-priority";
/// In milliseconds from the request's arrival, by when the client wants the whole answer.
const TIMEOUT: &str = "x-request-timeout-ms";

/// What headers say of the work. Of a header that is there several times the first counts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told<'h> {
    session: Option<&'h HeaderValue>,
    priority: Option<&'h HeaderValue>,
    timeout: Option<&'h HeaderValue>,
}

impl<'h> Told<'h> {
    /// In one look at those that are there: mostly it is none of these, and to look for each costs more.
    pub(crate) fn by(headers: &'h HeaderMap) -> Self {
        let mut told = Self::default();
        for (name, value) in headers {
            let place = match name.as_str() {
                SESSION => &mut told.session,
                PRIORITY => &mut told.priority,
                TIMEOUT => &mut told.timeout,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        told
    }
}

/// What is known of the work, but for the hashes of the prompt: those are made for whoever is let in.
pub(super) fn workload(
    fields: &Fields<'_>,
    api: Inference,
    told: &Told<'_>,
    identity: &Identity,
) -> Result<Workload, Box<ApiError>> {
    let max_tokens = match api {
        // Vectors cost nothing beyond the reading.
        Inference::Embedding => Some(0),
        Inference::Chat | Inference::Completion => {
            fields.max_tokens.map(|most| most.saturating_mul(fields.n.unwrap_or(1).max(1)))
        }
    };
    Ok(Workload {
        prompt_tokens: prompt::tokens(&fields.prompt),
        max_tokens,
        session: named_session(fields.session.map(str::as_bytes), told, identity),
        deadline: deadline(told)?,
        ..Workload::default()
    })
}

/// The conversation that the header names, or else the body.
pub(crate) fn named_session(body: Option<&[u8]>, told: &Told<'_>, identity: &Identity) -> Option<u64> {
    let header = told.session.map(HeaderValue::as_bytes).filter(|value| !value.is_empty());
    let name = header.or(body)?;
    Some(hash(scope(identity), name))
}

/// Whose names these are: what one tenant calls its conversation means nothing to another.
fn scope(identity: &Identity) -> u64 {
    identity.tenant().map_or(0, |tenant| hash(1, tenant.as_str().as_bytes()))
}

/// The hashes of the prompt, for the model of that name.
pub(super) fn prefix(
    prompt: &Prompt<'_>,
    model: &str,
    hashing: PromptHashing,
    identity: &Identity,
) -> PromptBlocks {
    let seed = if hashing.separate_tenants { scope(identity) } else { 0 };
    prompt::blocks(prompt, hashing, hash(seed, model.as_bytes()))
}

/// How urgent the request is: as the header says, else as `service_tier` (in JSON) does; never more than the client
/// was granted.
pub(crate) fn priority(
    tier: Option<&str>,
    told: &Told<'_>,
    identity: &Identity,
) -> Result<Priority, Box<ApiError>> {
    let asked = match told.priority {
        Some(value) => value.to_str().ok().and_then(|word| word.trim().parse().ok()).ok_or_else(|| {
            ApiError::bad_request(format!("The header `{PRIORITY}` must be `high`, `normal` or `low`."))
        })?,
        None => match tier {
            Some(r#""flex""#) => Priority::Low,
            Some(r#""priority""#) => Priority::High,
            _ => Priority::Normal,
        },
    };
    // The better class is the smaller.
    Ok(asked.max(identity.max_priority()))
}

pub(crate) fn deadline(told: &Told<'_>) -> Result<Option<Duration>, Box<ApiError>> {
    let Some(value) = told.timeout else { return Ok(None) };
    let millis = value.to_str().ok().and_then(|value| value.trim().parse::<u32>().ok());
    match millis.filter(|millis| *millis > 0) {
        Some(millis) => Ok(Some(Duration::from_millis(millis.into()))),
        None => Err(ApiError::bad_request(format!(
            "The header `{TIMEOUT}` must be a whole number of milliseconds from 1 to {}.",
            u32::MAX
        ))),
    }
}
