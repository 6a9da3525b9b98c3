//! llama.cpp's server: `/props`, `/slots`, `/metrics`, and its router's `/models/load` and `/models/unload`.

use std::time::Duration;

use gateway_core::{LinkError, Modalities, Modality, Model, ModelId, ModelState, ReportedLoad};
use serde::Deserialize;

use super::openai::ModelList;
use super::probe::{Probe, gauge, lenient};

#[derive(Debug, Default, Deserialize)]
struct Props {
    #[serde(default, deserialize_with = "lenient")]
    total_slots: Option<u32>,
    #[serde(default, deserialize_with = "lenient")]
    default_generation_settings: Option<Settings>,
    #[serde(default, deserialize_with = "lenient")]
    modalities: Option<Inputs>,
    /// Absent in older servers, which may have it all the same.
    #[serde(default, deserialize_with = "lenient")]
    endpoint_slots: Option<bool>,
    #[serde(default, deserialize_with = "lenient")]
    endpoint_metrics: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Settings {
    #[serde(default, deserialize_with = "lenient")]
    n_ctx: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct Inputs {
    #[serde(default)]
    vision: bool,
    #[serde(default)]
    audio: bool,
}

#[derive(Debug, Deserialize)]
struct Slot {
    is_processing: bool,
}

/// Adds to the one model what `/props` tells, and asks for the load. Besides it tells the slots.
pub(super) async fn look_closer(
    probe: &Probe<'_>,
    models: &mut [Model],
) -> (Option<ReportedLoad>, Option<u32>) {
    let Some(props) = probe.look::<Props>("/props").await else { return (None, None) };
    if let [model] = models {
        props.describe(model);
    }
    (load(probe, &props).await, props.slots())
}

/// How many requests it takes at once, if it tells.
pub(super) async fn slots(probe: &Probe<'_>) -> Option<u32> {
    probe.look::<Props>("/props").await?.slots()
}

impl Props {
    fn slots(&self) -> Option<u32> {
        self.total_slots.filter(|slots| *slots > 0)
    }

    fn describe(&self, model: &mut Model) {
        let per_slot = self.default_generation_settings.as_ref().and_then(|settings| settings.n_ctx);
        // What one request gets, where the list may tell what all slots have together.
        if let Some(tokens) = per_slot.filter(|tokens| *tokens > 0) {
            model.context_length = Some(tokens);
        }
        if let Some(inputs) = &self.modalities {
            // It does not tell whether it embeds, so that is not ruled out.
            let mut known = Modalities::default().with(Modality::Text).with(Modality::Embedding);
            if inputs.vision {
                known = known.with(Modality::Image);
            }
            if inputs.audio {
                known = known.with(Modality::Audio);
            }
            model.modalities = Some(known);
        }
    }
}

/// `/metrics` tells what waits too, but has to be switched on in the server. Both may be slow to answer
/// while the engine reads a long prompt; then the load stays unknown.
async fn load(probe: &Probe<'_>, props: &Props) -> Option<ReportedLoad> {
    if props.endpoint_metrics == Some(true) {
        let reply = probe.get("/metrics").await.ok().filter(|reply| reply.status.is_success())?;
        let active = gauge(reply.text(), "llamacpp:requests_processing")?;
        let queued = gauge(reply.text(), "llamacpp:requests_deferred")?;
        return Some(ReportedLoad { active, queued });
    }
    if props.endpoint_slots == Some(false) {
        return None;
    }
    let slots: Vec<Slot> = probe.look("/slots").await?;
    let active = slots.iter().filter(|slot| slot.is_processing).count();
    Some(ReportedLoad { active: u32::try_from(active).unwrap_or(u32::MAX), queued: 0 })
}

/// Loads or unloads a model of the router. It answers before that is done, so its list is watched.
pub(super) async fn change(
    probe: &Probe<'_>,
    model: &ModelId,
    load: bool,
) -> Result<Result<(), String>, LinkError> {
    /// Between two looks at the list: short against any load, long against the cost of a look.
    const PAUSE: Duration = Duration::from_millis(250);
    let path = if load { "/models/load" } else { "/models/unload" };
    let reply = probe.post(path, &serde_json::json!({ "model": model.as_str() })).await?;
    if !reply.status.is_success() {
        return Ok(Err(reply.complaint()));
    }
    loop {
        let reply = probe.get("/v1/models").await?;
        let Some(list) = reply.json::<ModelList>().filter(|_| reply.status.is_success()) else {
            return Ok(Err(reply.complaint()));
        };
        let found = list.into_models().into_iter().find(|found| found.id == *model);
        match (found.map(|found| found.state), load) {
            (Some(ModelState::Loaded), true) => return Ok(Ok(())),
            (Some(ModelState::Failed { .. }), true) => return Ok(Err("the engine failed to load it".into())),
            (Some(ModelState::OnDemand | ModelState::Failed { .. }) | None, false) => return Ok(Ok(())),
            (None, true) => return Ok(Err("the engine no longer lists it".into())),
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}
