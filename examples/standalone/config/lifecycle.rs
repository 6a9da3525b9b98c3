use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use gateway_core::{Backoff, IdleUnload, LifecyclePolicy, ModelId};

use super::section::{ConfigError, Seconds, section, within};

section! {
    /// When models are loaded and unloaded.
    Lifecycle {
        enabled: bool = true,
        max_waiting: usize = LifecyclePolicy::MAX_WAITING,
        load_timeout_s: Seconds = Seconds(LifecyclePolicy::LOAD_TIMEOUT),
        unload_timeout_s: Seconds = Seconds(LifecyclePolicy::UNLOAD_TIMEOUT),
        keep_alive_s: Seconds = Seconds(Duration::ZERO),
        keep_alive_s_of: BTreeMap<String, Seconds> = BTreeMap::new(),
        unload_all: bool = false,
        pinned: Vec<String> = Vec::new(),
        max_loaded: u32 = 0,
        memory_factor: f64 = LifecyclePolicy::MEMORY_FACTOR,
        shortest_pause_s: Seconds = Seconds(LifecyclePolicy::SHORTEST_PAUSE),
        longest_pause_s: Seconds = Seconds(LifecyclePolicy::LONGEST_PAUSE),
        max_failed: u32 = LifecyclePolicy::MAX_FAILED,
    }
}

impl Lifecycle {
    pub(super) fn policy(&self) -> Result<LifecyclePolicy, ConfigError> {
        let model = |key: &str, name: &str| {
            ModelId::new(name).map_err(|error| ConfigError::at(&format!("lifecycle.{key}"), error))
        };
        let usual = LifecyclePolicy::default();
        let jitter = usual.backoff.jitter();
        let backoff = Backoff::new(self.shortest_pause_s.0, self.longest_pause_s.0, jitter);
        let mut policy = LifecyclePolicy {
            enabled: self.enabled,
            max_waiting: self.max_waiting,
            load_timeout: self.load_timeout_s.0,
            unload_timeout: self.unload_timeout_s.0,
            memory_factor: within("lifecycle.memory_factor", self.memory_factor, (0.0, f64::MAX))?,
            backoff: backoff.map_err(|error| ConfigError::at("lifecycle", error))?,
            max_failed: within("lifecycle.max_failed", self.max_failed, (1, u32::MAX))?,
            keep_alive: self.keep_alive_s.unless_zero(),
            idle_unload: if self.unload_all { IdleUnload::All } else { IdleUnload::LoadedHere },
            max_loaded: NonZeroU32::new(self.max_loaded),
            ..usual
        };
        for (name, time) in &self.keep_alive_s_of {
            policy = policy.keep_alive_of(model("keep_alive_s_of", name)?, time.unless_zero());
        }
        for name in &self.pinned {
            policy = policy.pin(model("pinned", name)?);
        }
        Ok(policy)
    }
}
