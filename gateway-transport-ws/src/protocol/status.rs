//! How a runner is, as it stands on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::lenient;

/// How a runner is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunnerStatus {
    /// All in all.
    pub health: Health,
    /// What it can do; entries that are not understood are skipped.
    #[serde(deserialize_with = "lenient::known_entries")]
    pub capabilities: Vec<CapabilityInfo>,
    /// What serves the models; entries that are not understood are skipped.
    #[serde(deserialize_with = "lenient::known_entries")]
    pub engines: Vec<EngineStatus>,
    /// Figures, if it keeps any.
    #[serde(default, deserialize_with = "lenient::or_none")]
    pub metrics: Option<RunnerMetrics>,
    /// Canonical model names to the runner's own.
    #[serde(default, deserialize_with = "lenient::null_is_default")]
    pub model_aliases: BTreeMap<String, String>,
    /// Ours: how busy it is.
    #[serde(default, deserialize_with = "lenient::or_none", skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
    /// Ours: what the machine has.
    #[serde(default, deserialize_with = "lenient::or_none", skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesReport>,
}

/// Health in one word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// All is well.
    Healthy,
    /// It serves, with something amiss.
    Degraded,
    /// Not yet ready.
    #[default]
    Starting,
    /// On its way out.
    ShuttingDown,
    /// It cannot serve. A word that is not known here counts as this one: nothing is sent to a runner
    /// whose health is not understood.
    #[serde(other)]
    Unhealthy,
}

/// One capability.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CapabilityInfo {
    /// Which.
    pub capability: Capability,
    /// The state of its model.
    pub status: CapabilityStatus,
    /// Its model.
    #[serde(default)]
    pub model_id: Option<String>,
    /// Requests at this moment; `None` if it does not say (written as 0).
    #[serde(default, serialize_with = "or_zero")]
    pub active_requests: Option<u32>,
    /// Mean time of a request in milliseconds.
    #[serde(default)]
    pub avg_latency_ms: Option<f64>,
    /// Whatever else; left out when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<serde_json::Value>,
}

fn or_zero<S: serde::Serializer>(number: &Option<u32>, output: S) -> Result<S::Ok, S::Error> {
    output.serialize_u32(number.unwrap_or(0))
}

/// What a runner can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// The state of a capability's model: an object on the wire, `{"status":"loaded"}`. Read from a bare
/// string as well.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum CapabilityStatus {
    /// Not in memory.
    Unloaded,
    /// On its way into memory.
    Loading {
        /// Share done, 0 to 1.
        progress: Option<f32>,
    },
    /// Ready.
    Loaded,
    /// On its way out of memory.
    Unloading,
    /// It failed.
    Error {
        /// Why.
        message: String,
    },
}

impl<'de> Deserialize<'de> for CapabilityStatus {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Word {
            Unloaded,
            Loading,
            Loaded,
            Unloading,
            Error,
        }
        #[derive(Deserialize)]
        struct Nested {
            status: Word,
            #[serde(default)]
            progress: Option<f32>,
            #[serde(default, deserialize_with = "lenient::null_is_default")]
            message: String,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Bare(Word),
            Nested(Nested),
        }
        let nested = match Either::deserialize(input)? {
            Either::Bare(status) => Nested { status, progress: None, message: String::new() },
            Either::Nested(nested) => nested,
        };
        Ok(match nested.status {
            Word::Unloaded => Self::Unloaded,
            Word::Loading => Self::Loading { progress: nested.progress },
            Word::Loaded => Self::Loaded,
            Word::Unloading => Self::Unloading,
            Word::Error => Self::Error { message: nested.message },
        })
    }
}

/// One engine of a runner.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineStatus {
    /// What it is, such as `llama_cpp`; any word will do.
    pub engine_type: String,
    /// Whether it serves.
    pub is_healthy: bool,
    /// Its version.
    #[serde(default)]
    pub version: Option<String>,
    /// Names of the models in memory.
    #[serde(default, deserialize_with = "lenient::null_is_default")]
    pub loaded_models: Vec<String>,
    /// Models that it has; entries that are not understood are skipped.
    #[serde(default, deserialize_with = "lenient::known_entries")]
    pub available_models: Vec<ModelInfo>,
    /// What is wrong with it.
    #[serde(default)]
    pub error: Option<String>,
    /// Requests that it works on together; 1 if an older runner does not say.
    #[serde(default = "one")]
    pub batch_size: u32,
}

fn one() -> u32 {
    1
}

/// One model of an engine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Its name.
    pub id: String,
    /// Its name for people.
    #[serde(default, deserialize_with = "lenient::null_is_default")]
    pub name: String,
    /// Size in bytes.
    #[serde(default)]
    pub size_bytes: Option<u64>,
    /// Parameters.
    #[serde(default)]
    pub parameter_count: Option<u64>,
    /// Longest context in tokens.
    #[serde(default)]
    pub context_length: Option<u32>,
    /// Such as `Q4_K_M`.
    #[serde(default)]
    pub quantization: Option<String>,
    /// When it was made, as RFC 3339 has it.
    #[serde(default)]
    pub modified_at: Option<String>,
    /// How it can think; left out when absent.
    #[serde(default, deserialize_with = "lenient::or_none", skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Reasoning>,
    /// Ours: the engine loads it by itself when a request asks for it. Left out when false.
    #[serde(
        default,
        deserialize_with = "lenient::null_is_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub on_demand: bool,
}

/// How a model can think.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reasoning {
    /// How hard it can be asked to think; words that are not known are skipped.
    #[serde(default, deserialize_with = "lenient::known_entries")]
    pub supported_efforts: Vec<Effort>,
    /// Whether it takes a number of tokens to think.
    #[serde(default)]
    pub supports_thinking_budget: bool,
    /// How hard it thinks unless asked.
    #[serde(default, deserialize_with = "lenient::or_none")]
    pub default_effort: Option<Effort>,
    /// How many tokens it thinks unless asked.
    #[serde(default)]
    pub default_thinking_budget_tokens: Option<i32>,
}

/// How hard a model is asked to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// Not at all.
    None,
    /// As the model sees fit.
    Default,
    /// As little as it can.
    Minimal,
    /// A little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
    /// Very much.
    XHigh,
    /// As much as it can.
    Max,
}

/// Figures that a runner keeps of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunnerMetrics {
    /// Requests since its start.
    #[serde(default)]
    pub requests_processed: u64,
    /// Mean time of a request in milliseconds.
    #[serde(default)]
    pub avg_latency_ms: Option<f64>,
    /// GPU memory in use, in bytes.
    #[serde(default)]
    pub gpu_memory_used: Option<u64>,
    /// GPU memory, in bytes.
    #[serde(default)]
    pub gpu_memory_total: Option<u64>,
    /// 0 to 100.
    #[serde(default)]
    pub cpu_usage_percent: Option<f32>,
    /// Memory in use, in bytes.
    #[serde(default)]
    pub memory_used: Option<u64>,
}

/// Ours: how busy a runner is, whoever sent the requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Requests that it works on.
    pub active: u32,
    /// Requests that wait in its engine.
    #[serde(default)]
    pub queued: u32,
}

/// Ours: an amount of machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Processor cores.
    pub cpus: f64,
    /// Accelerators.
    pub gpus: f64,
    /// Memory in gigabytes.
    pub memory_gb: f64,
}

/// Ours: what a runner's machine has, and what of it is free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct ResourcesReport {
    /// All of it.
    #[serde(default)]
    pub total: Option<Resources>,
    /// What is free.
    #[serde(default)]
    pub available: Option<Resources>,
}
