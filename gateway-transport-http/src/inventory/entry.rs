//! One runner as a file says it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use gateway_core::Resources;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::engine::EngineKind;
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
#[derive(Deserialize, Serialize, Clone, Default, PartialEq)]
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
    /// Sent to it as `authorization: Bearer KEY`. Written out, it is hidden.
    #[serde(serialize_with = "hidden")]
    pub api_key: Option<String>,
    /// What answers there, such as `vllm`. Left out, it is found out.
    #[serde(default)]
    pub kind: EngineKind,
    /// How long to wait between two probes.
    #[serde(
        default,
        rename = "probe_interval_s",
        deserialize_with = "seconds",
        serialize_with = "in_seconds"
    )]
    pub probe_interval: Option<Duration>,
    /// How long all questions of one probe may take together.
    #[serde(
        default,
        rename = "probe_timeout_s",
        deserialize_with = "seconds",
        serialize_with = "in_seconds"
    )]
    pub probe_timeout: Option<Duration>,
    /// How old the capacity may be that it reports when it is asked.
    #[serde(default, rename = "capacity_age_s", deserialize_with = "seconds", serialize_with = "in_seconds")]
    pub capacity_age: Option<Duration>,
    /// What its machine has, if it does not report it.
    pub resources: Option<EntryResources>,
}

/// An amount of machine as a settings file says it; what is left out is 0.
#[derive(Deserialize, Serialize, Debug, Clone, Copy, Default, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct EntryResources {
    /// Processor cores.
    pub cpus: f64,
    /// Accelerators.
    pub gpus: f64,
    /// Memory in gigabytes.
    pub memory_gb: f64,
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let time = Duration::try_from_secs_f64(f64::deserialize(deserializer)?);
    time.map(Some).map_err(|_| serde::de::Error::custom("a time is a number of seconds from 0 on"))
}

fn in_seconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(serializer)
}

fn hidden<S: Serializer>(key: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    key.as_ref().map(|_| "(hidden)").serialize(serializer)
}

impl RunnerEntry {
    /// A runner of which only the address is known.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
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
        if let Some(interval) = self.probe_interval {
            runner = runner.probe_interval(interval);
        }
        if let Some(limit) = self.probe_timeout {
            runner = runner.probe_timeout(limit);
        }
        if let Some(age) = self.capacity_age {
            runner = runner.capacity_age(age);
        }
        if let Some(EntryResources { cpus, gpus, memory_gb }) = self.resources {
            runner = runner.resources(Resources { cpus, gpus, memory_gb });
        }
        runner = runner.kind(self.kind);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_probing_has_its_place() {
        let said = r#"{"url": "http://h:1", "kind": "neutrino", "probe_interval_s": 0.5, "probe_timeout_s": 3,
            "capacity_age_s": 0, "resources": {"gpus": 2}}"#;
        let entry: RunnerEntry = serde_json::from_str(said).unwrap();
        let meant = HttpRunner::new("http://h:1")
            .unwrap()
            .kind(EngineKind::Neutrino)
            .probe_interval(Duration::from_millis(500))
            .probe_timeout(Duration::from_secs(3))
            .capacity_age(Duration::ZERO)
            .resources(Resources { gpus: 2.0, ..Resources::default() });
        assert_eq!(entry.runner().unwrap(), meant);
        assert_eq!(RunnerEntry::at("http://h:1").runner().unwrap(), HttpRunner::new("http://h:1").unwrap());
        for (odd, word) in [
            (r#"{"url": "http://h:1", "kind": "tgi"}"#, "tgi"),
            (r#"{"url": "http://h:1", "probe_interval_s": -1}"#, "seconds"),
            (r#"{"url": "http://h:1", "resources": {"gpu": 1}}"#, "gpu"),
        ] {
            let error = serde_json::from_str::<RunnerEntry>(odd).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
