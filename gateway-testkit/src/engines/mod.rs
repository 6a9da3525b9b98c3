//! Engines whose API is scripted, with a state that their answers follow.

mod neutrino;
mod ollama;

pub use neutrino::ScriptedNeutrino;
pub use ollama::ScriptedOllama;
