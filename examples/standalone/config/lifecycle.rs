use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use gateway_core::{IdleUnload, LifecyclePolicy, ModelId};

use super::section::{ConfigError, Seconds, section};

section! {
    /// When models are loaded and unloaded.
    Lifecycle {
        enabled: bool = true,
        load_timeout_s: Seconds = Seconds(LifecyclePolicy::LOAD_TIMEOUT),
        keep_alive_s: Seconds = Seconds(Duration::ZERO),
        keep_alive_s_of: BTreeMap<String, Seconds> = BTreeMap::new(),
        unload_all: bool = false,
        pinned: Vec<String> = Vec::new(),
        max_loaded: u32 = 0,
    }
}

impl Lifecycle {
    pub(super) fn policy(&self) -> Result<LifecyclePolicy, ConfigError> {
        let model = |key: &str, name: &str| {
            ModelId::new(name).map_err(|error| ConfigError::at(&format!("lifecycle.{key}"), error))
        };
        let mut policy = LifecyclePolicy {
            enabled: self.enabled,
            load_timeout: self.load_timeout_s.0,
            keep_alive: self.keep_alive_s.unless_zero(),
            idle_unload: if self.unload_all { IdleUnload::All } else { IdleUnload::LoadedHere },
            max_loaded: NonZeroU32::new(self.max_loaded),
            ..LifecyclePolicy::default()
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
