use bytes::Bytes;

use super::resources::ResourceReport;
use crate::names::ModelId;

/// How a runner says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Health {
    /// All is well.
    Healthy,
    /// It serves, with something amiss.
    Degraded,
    /// Not yet ready.
    #[default]
    Starting,
    /// On its way out: finishes what it has, takes nothing new.
    ShuttingDown,
    /// It cannot serve.
    Unhealthy,
}

impl Health {
    /// Whether requests may be sent: healthy or degraded.
    pub fn is_operational(self) -> bool {
        matches!(self, Self::Healthy | Self::Degraded)
    }

    /// The word for it on the wire, in logs and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Starting => "starting",
            Self::ShuttingDown => "shutting_down",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Where a model is in its life on one runner.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelState {
    /// On disk; a load command is needed before it serves.
    Available,
    /// Not loaded, but the engine loads it by itself when a request asks for it, as Ollama does.
    OnDemand,
    /// On its way into memory.
    Loading {
        /// Share done, 0 to 1, if the engine tells.
        progress: Option<f32>,
    },
    /// Ready to serve.
    Loaded,
    /// On its way out of memory.
    Unloading,
    /// Loading or serving it failed.
    Failed {
        /// The engine's words.
        message: Option<String>,
    },
}

impl ModelState {
    /// The words for all states, for whoever prepares a gauge for each.
    pub const WORDS: [&'static str; 6] =
        ["available", "on_demand", "loading", "loaded", "unloading", "failed"];

    /// The word for it in logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::OnDemand => "on_demand",
            Self::Loading { .. } => "loading",
            Self::Loaded => "loaded",
            Self::Unloading => "unloading",
            Self::Failed { .. } => "failed",
        }
    }
}

/// A kind of input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Modality {
    /// Text in, text out.
    Text = 1,
    /// Images as input.
    Image = 2,
    /// Audio in or out.
    Audio = 4,
    /// Vectors as output.
    Embedding = 8,
}

/// A set of [`Modality`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Modalities(u8);

impl Modalities {
    /// The set with `modality` added.
    pub fn with(self, modality: Modality) -> Self {
        Self(self.0 | modality as u8)
    }

    /// Whether every member of `need` is in this set.
    pub fn covers(self, need: Modalities) -> bool {
        self.0 & need.0 == need.0
    }

    /// Whether the set has no member.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What a runner is good for, in the words of its control protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Chat with a small, quick model.
    FastChat,
    /// Chat with a large model.
    LargeChat,
    /// Vectors from text.
    Embeddings,
    /// Translation.
    Translation,
    /// Text out of images.
    Ocr,
    /// Vectors from audio.
    AudioEmbeddings,
    /// Speech from text.
    Tts,
}

/// One capability as a runner reports it.
#[derive(Debug, Clone, PartialEq)]
pub struct CapabilityReport {
    /// What it can do.
    pub capability: Capability,
    /// With which model.
    pub model: Option<ModelId>,
    /// In what state that model is.
    pub state: ModelState,
}

/// One model on one runner.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The canonical name: what clients ask for.
    pub id: ModelId,
    /// Where it is in its life.
    pub state: ModelState,
    /// Longest context in tokens, if known.
    pub context_length: Option<u32>,
    /// What it takes and gives, if known.
    pub modalities: Option<Modalities>,
    /// Size on disk in bytes, if known.
    pub size_bytes: Option<u64>,
    /// When it was made, in seconds since 1970, if known.
    pub created: Option<i64>,
    /// Who made it, if known.
    pub owned_by: Option<String>,
    local: Option<(ModelId, Bytes)>,
}

impl Model {
    /// A model of which only name and state are known.
    pub fn new(id: ModelId, state: ModelState) -> Self {
        Self {
            id,
            state,
            context_length: None,
            modalities: None,
            size_bytes: None,
            created: None,
            owned_by: None,
            local: None,
        }
    }

    /// A model that is loaded.
    pub fn loaded(id: ModelId) -> Self {
        Self::new(id, ModelState::Loaded)
    }

    /// Sets the runner's own name for the model. It replaces the canonical name in the request's body.
    pub fn with_local_name(mut self, local: ModelId) -> Self {
        self.local = (local != self.id).then(|| {
            let json = json_string(local.as_str());
            (local, json)
        });
        self
    }

    /// The runner's own name for the model; the canonical one unless set otherwise.
    pub fn local_name(&self) -> &ModelId {
        self.local.as_ref().map_or(&self.id, |(name, _)| name)
    }

    pub(crate) fn local_json(&self) -> Option<&Bytes> {
        self.local.as_ref().map(|(_, json)| json)
    }
}

/// `text` as a JSON string. Model names hold no control characters, so two escapes are all there is.
pub(crate) fn json_string(text: &str) -> Bytes {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            json.push('\\');
        }
        json.push(c);
    }
    json.push('"');
    json.into()
}

/// Load as a runner reports it. Its age counts from the moment at which the report arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportedLoad {
    /// Requests that it works on, whoever sent them.
    pub active: u32,
    /// Requests that wait inside the engine.
    pub queued: u32,
}

/// What a runner says of itself. What it does not say stays unknown.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunnerStatus {
    /// How it is.
    pub health: Health,
    /// The models it has, loaded or not.
    pub models: Vec<Model>,
    /// What it is good for.
    pub capabilities: Vec<CapabilityReport>,
    /// What the machine has. What is free of it changes all the time: see
    /// [`Runner::available_resources`](crate::Runner::available_resources).
    pub resources: ResourceReport,
    /// How busy it is.
    pub load: Option<ReportedLoad>,
}

impl RunnerStatus {
    /// A healthy runner that has loaded `models`.
    pub fn serving(models: impl IntoIterator<Item = ModelId>) -> Self {
        let models = models.into_iter().map(Model::loaded).collect();
        Self { health: Health::Healthy, models, ..Self::default() }
    }

    pub(crate) fn is_same_but_for_load(&self, other: &Self) -> bool {
        self.health == other.health
            && self.models == other.models
            && self.capabilities == other.capabilities
            && self.resources.total == other.resources.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_names_are_escaped_as_json() {
        assert_eq!(&json_string(r#"a"b\c/é"#)[..], r#""a\"b\\c/é""#.as_bytes());
    }
}
