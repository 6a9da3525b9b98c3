//! What every engine with OpenAI's API tells: `GET /v1/models`.

use gateway_core::{Model, ModelId, ModelState};
use serde::Deserialize;

use super::probe::{each, lenient};

/// OpenAI's list of models, with what llama.cpp, vLLM and SGLang add to it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ModelList {
    /// Absent in what is no list; `null` in an Ollama that has no models.
    #[serde(default, deserialize_with = "each")]
    pub(super) data: Option<Vec<Listed>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    id: String,
    #[serde(default, deserialize_with = "lenient")]
    created: Option<i64>,
    #[serde(default, deserialize_with = "lenient")]
    owned_by: Option<String>,
    /// vLLM and SGLang.
    #[serde(default, deserialize_with = "lenient")]
    max_model_len: Option<u32>,
    /// llama.cpp.
    #[serde(default, deserialize_with = "lenient")]
    meta: Option<Meta>,
    /// llama.cpp, if it has several models.
    #[serde(default, deserialize_with = "lenient")]
    status: Option<Status>,
}

#[derive(Debug, Deserialize)]
struct Meta {
    #[serde(default, deserialize_with = "lenient")]
    n_ctx: Option<u32>,
    #[serde(default, deserialize_with = "lenient")]
    size: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Status {
    #[serde(default, deserialize_with = "lenient")]
    value: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    failed: Option<bool>,
}

impl ModelList {
    /// Whose engine it is, by the engine's own word.
    pub(super) fn owner(&self) -> Option<&str> {
        self.data.as_ref()?.iter().find_map(|listed| listed.owned_by.as_deref())
    }

    /// Whether the engine has several models and loads them by itself, as llama.cpp's router does.
    pub(super) fn has_states(&self) -> bool {
        self.data.iter().flatten().any(|listed| listed.status.is_some())
    }

    /// The models whose names can be used.
    pub(super) fn into_models(self) -> Vec<Model> {
        self.data.into_iter().flatten().filter_map(Listed::into_model).collect()
    }
}

impl Listed {
    fn into_model(self) -> Option<Model> {
        let id = usable(&self.id)?;
        let state = match &self.status {
            None => ModelState::Loaded,
            Some(Status { failed: Some(true), .. }) => ModelState::Failed { message: None },
            Some(status) => match status.value.as_deref() {
                // Asleep is awake as soon as a request comes.
                Some("loaded" | "sleeping") => ModelState::Loaded,
                Some("loading" | "downloading") => ModelState::Loading { progress: None },
                _ => ModelState::OnDemand,
            },
        };
        let (n_ctx, size) = self.meta.map_or((None, None), |meta| (meta.n_ctx, meta.size));
        let mut model = Model::new(id, state);
        model.context_length = self.max_model_len.or(n_ctx).filter(|tokens| *tokens > 0);
        model.size_bytes = size;
        model.created = self.created;
        model.owned_by = self.owned_by;
        Some(model)
    }
}

/// The name, if it is one that can be asked for.
pub(super) fn usable(name: &str) -> Option<ModelId> {
    ModelId::new(name)
        .inspect_err(|error| tracing::debug!(%error, "the engine lists a model that cannot be named"))
        .ok()
}
