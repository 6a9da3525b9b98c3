//! One runner as a file says it.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::source::{HttpRunner, InvalidRunner};

/// What a settings file says of one runner: the `[[runner]]` of `standalone`, and of the file that
/// `WatchedFile` (feature `file`) reads. An unknown key is an error.
///
/// ```
/// use gateway_transport_http::RunnerEntry;
///
/// let entry: RunnerEntry = serde_json::from_str(r#"{"url": "http://10.0.0.5:8000", "slots": 8}"#)?;
/// assert_eq!(entry.runner()?.runner_id().as_str(), "10.0.0.5:8000");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Deserialize, Clone, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct RunnerEntry {
    /// Its address, such as `http://10.0.0.5:8000`.
    pub url: String,
    /// Its stable id; `host:port` unless said.
    pub id: Option<String>,
    /// The models it serves. Left out, it is asked for them.
    #[serde(default)]
    pub models: Vec<String>,
    /// The most requests it takes at once.
    pub slots: Option<u32>,
    /// Facts that requests can ask for.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What kind of machine it is, such as `gpu`.
    pub machine: Option<String>,
    /// Sent to it as `authorization: Bearer KEY`.
    pub api_key: Option<String>,
}

impl RunnerEntry {
    /// A runner of which only the address is known.
    pub fn at(url: impl Into<String>) -> Self {
        let (models, labels) = (Vec::new(), BTreeMap::new());
        Self { url: url.into(), id: None, models, slots: None, labels, machine: None, api_key: None }
    }

    /// The runner that is meant.
    ///
    /// # Errors
    ///
    /// If its address, id, key or one of its models cannot be.
    pub fn runner(&self) -> Result<HttpRunner, InvalidRunner> {
        let mut runner = HttpRunner::new(&self.url)?;
        if let Some(id) = &self.id {
            runner = runner.id(id);
        }
        if let Some(machine) = &self.machine {
            runner = runner.machine(machine);
        }
        if let Some(slots) = self.slots {
            runner = runner.slots(slots);
        }
        if !self.models.is_empty() {
            runner = runner.models(&self.models);
        }
        if let Some(key) = &self.api_key {
            runner = runner.api_key(key);
        }
        runner = self.labels.iter().fold(runner, |runner, (key, value)| runner.label(key, value));
        runner.validate()?;
        Ok(runner)
    }
}

impl fmt::Debug for RunnerEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key, nor the address before it is checked: there may be a password in it.
        f.debug_struct("RunnerEntry")
            .field("id", &self.id)
            .field("models", &self.models)
            .finish_non_exhaustive()
    }
}
