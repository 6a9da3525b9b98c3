//! The kinds of engines.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What answers behind an address. Given, the questions of other kinds are not asked.
///
/// ```
/// use gateway_transport_http::EngineKind;
///
/// assert_eq!("llama-cpp".parse(), Ok(EngineKind::LlamaCpp));
/// assert_eq!(EngineKind::default(), EngineKind::Auto);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EngineKind {
    /// It is found out by what it answers.
    #[default]
    Auto,
    /// Any with OpenAI's `/v1/models`.
    OpenAi,
    /// llama.cpp's server, with one model or several.
    LlamaCpp,
    /// vLLM's server.
    Vllm,
    /// SGLang's server.
    Sglang,
    /// Ollama.
    Ollama,
    /// One that does tasks instead of serving models, and says at `/capacity` what it has free, as Neutrino does.
    Neutrino,
}

impl EngineKind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Auto, Self::OpenAi, Self::LlamaCpp, Self::Vllm, Self::Sglang, Self::Ollama, Self::Neutrino];

    /// Its name in settings and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::OpenAi => "openai",
            Self::LlamaCpp => "llama-cpp",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Ollama => "ollama",
            Self::Neutrino => "neutrino",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no [`EngineKind`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no kind of engine is called {0:?}; write one of auto, openai, llama-cpp, vllm, sglang, ollama, neutrino"
)]
pub struct UnknownEngineKind(String);

impl FromStr for EngineKind {
    type Err = UnknownEngineKind;

    fn from_str(word: &str) -> Result<Self, UnknownEngineKind> {
        let plain = |word: &str| word.trim().to_ascii_lowercase().replace(['-', '_', '.'], "");
        let found = Self::ALL.into_iter().find(|kind| plain(kind.as_str()) == plain(word));
        found.ok_or_else(|| UnknownEngineKind(word.to_owned()))
    }
}

impl Serialize for EngineKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for EngineKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Cow::<str>::deserialize(deserializer)?;
        word.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_known_by_its_name() {
        for kind in EngineKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!("llama_cpp".parse(), Ok(EngineKind::LlamaCpp));
        assert_eq!("OpenAI".parse(), Ok(EngineKind::OpenAi));
        let error = "tgi".parse::<EngineKind>().unwrap_err().to_string();
        assert!(EngineKind::ALL.iter().all(|kind| error.contains(kind.as_str())) && error.contains("tgi"));
    }
}
