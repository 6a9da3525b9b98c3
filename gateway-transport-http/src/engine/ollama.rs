//! Ollama: `/api/tags` lists what is on disk, `/api/ps` what is in memory; `/api/generate` without a prompt
//! loads and unloads.

use gateway_core::{LinkError, Model, ModelId, ModelState};
use serde::Deserialize;
use serde_json::json;

use super::openai::usable;
use super::probe::{Probe, Reply, each, lenient};

#[derive(Debug, Default, Deserialize)]
struct Tags {
    #[serde(default, deserialize_with = "each")]
    models: Option<Vec<Tag>>,
}

#[derive(Debug, Deserialize)]
struct Tag {
    name: String,
    #[serde(default, deserialize_with = "lenient")]
    size: Option<u64>,
    /// In `/api/ps` only.
    #[serde(default, deserialize_with = "lenient")]
    context_length: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct Version {
    #[serde(rename = "version")]
    _version: String,
}

/// Whether it is an Ollama that answers; an error if that cannot be learnt now.
pub(super) async fn answers(probe: &Probe<'_>) -> Result<bool, LinkError> {
    let version = probe.get("/api/version").await?;
    if !version.status.is_success() || version.json::<Version>().is_none() {
        return Ok(false);
    }
    // Others may have a version there too, but not with this list beside it.
    let tags = probe.get("/api/tags").await?;
    Ok(tags.status.is_success() && tags.json::<Tags>().is_some_and(|tags| tags.models.is_some()))
}

/// Every model on disk. `None` if it is no longer an Ollama that answers.
pub(super) async fn models(probe: &Probe<'_>, listed: Vec<Model>) -> Result<Option<Vec<Model>>, LinkError> {
    let reply = probe.get("/api/tags").await?;
    let Some(tags) = reply.json::<Tags>().filter(|_| reply.status.is_success()) else { return Ok(None) };
    let in_memory = probe.look::<Tags>("/api/ps").await.and_then(|tags| tags.models).unwrap_or_default();
    let models = tags.models.into_iter().flatten().filter_map(|tag| {
        let id = usable(&tag.name)?;
        let running = in_memory.iter().find(|running| running.name == tag.name);
        let state = if running.is_some() { ModelState::Loaded } else { ModelState::OnDemand };
        let mut model = Model::new(id, state);
        model.context_length =
            running.and_then(|running| running.context_length).filter(|tokens| *tokens > 0);
        model.size_bytes = tag.size;
        if let Some(listed) = listed.iter().find(|listed| listed.id == model.id) {
            model.created = listed.created;
            model.owned_by.clone_from(&listed.owned_by);
        }
        Some(model)
    });
    Ok(Some(models.collect()))
}

/// Loads a model until it is unloaded by a command or pushed out by another, or unloads it.
pub(super) async fn change(
    probe: &Probe<'_>,
    model: &ModelId,
    load: bool,
) -> Result<Result<(), String>, LinkError> {
    let keep_alive = if load { -1 } else { 0 };
    let ask = json!({ "model": model.as_str(), "keep_alive": keep_alive, "stream": false });
    let reply = probe.post("/api/generate", &ask).await?;
    if reply.status == http::StatusCode::BAD_REQUEST {
        // A model that only embeds cannot generate, and says so.
        let ask = json!({ "model": model.as_str(), "keep_alive": keep_alive, "input": [] });
        return Ok(done(&probe.post("/api/embed", &ask).await?));
    }
    Ok(done(&reply))
}

fn done(reply: &Reply) -> Result<(), String> {
    if reply.status.is_success() { Ok(()) } else { Err(reply.complaint()) }
}
