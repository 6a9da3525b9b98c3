use std::collections::BTreeMap;
use std::time::Duration;

use gateway_transport_http::{DnsNames, EngineKind, EngineLink, FixedList, HttpRunners, WatchedFile};
use serde::{Deserialize, Serialize};

use super::Settings;
use super::section::{ConfigError, Seconds, Secret, section, within};

/// Where it is known which runners there are, beside those of the settings.
#[derive(Deserialize, Serialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    Static,
    Dns,
    File,
    Kubernetes,
}

impl Mode {
    pub(super) fn named(word: &str) -> Result<Self, ConfigError> {
        let modes = [Self::Static, Self::Dns, Self::File, Self::Kubernetes];
        let found = modes.into_iter().find(|mode| format!("{mode:?}").eq_ignore_ascii_case(word.trim()));
        found.ok_or_else(|| {
            let problem = format!("it is static, dns, file or kubernetes, not `{word}`");
            ConfigError::at("DISCOVERY_MODE", problem)
        })
    }
}

section! {
    /// How runners are found, and how they go.
    Discovery {
        mode: Mode = Mode::Static,
        interval_s: Seconds = Seconds(Duration::ZERO),
        max_runners: usize = HttpRunners::MAX_RUNNERS,
        drain_s: Seconds = Seconds(HttpRunners::DRAIN_TIMEOUT),
        models: Vec<String> = Vec::new(),
        slots: u32 = 0,
        labels: BTreeMap<String, String> = BTreeMap::new(),
        machine: String = String::new(),
        api_key: Secret = Secret::default(),
        kind: EngineKind = EngineKind::Auto,
        probe_interval_s: Seconds = Seconds(Duration::ZERO),
        probe_timeout_s: Seconds = Seconds(EngineLink::PROBE_TIMEOUT),
        capacity_age_s: Seconds = Seconds(EngineLink::CAPACITY_AGE),
        names: Vec<String> = Vec::new(),
        path: String = String::new(),
        namespace: String = String::new(),
        selector: String = String::new(),
        service: String = String::new(),
        port: String = String::new(),
        label_prefix: String = String::new(),
    }
}

impl Settings {
    /// The runners that are written down.
    ///
    /// # Errors
    /// One of them cannot be; the message names the key.
    pub(crate) fn listed(&self) -> Result<HttpRunners, ConfigError> {
        let runners =
            self.runners.iter().map(|entry| entry.runner().map_err(|error| ConfigError::at("runner", error)));
        let runners: Vec<_> = runners.collect::<Result<_, _>>()?;
        Ok(self.discovery.limited(FixedList::runners(runners).into()))
    }

    /// Where others are looked for.
    #[allow(dead_code, reason = "for tests")]
    pub(crate) fn mode(&self) -> Mode {
        self.discovery.mode
    }

    /// Those that are found; nobody unless it is said where.
    ///
    /// # Errors
    /// Something of it cannot be; the message names the key.
    pub(crate) fn found(&self) -> Result<HttpRunners, ConfigError> {
        Ok(self.discovery.source()?.unwrap_or_else(|| HttpRunners::fixed::<&str>([])))
    }
}

impl Discovery {
    fn source(&self) -> Result<Option<HttpRunners>, ConfigError> {
        self.check()?;
        let interval = self.interval_s.unless_zero();
        let runners = match self.mode {
            Mode::Static => return Ok(None),
            Mode::Dns => {
                let names = DnsNames::new(&self.names);
                let names = names.map_err(|error| ConfigError::at("discovery.names", error))?;
                HttpRunners::from_inventory(names.interval(interval.unwrap_or(DnsNames::INTERVAL)))
            }
            Mode::File => {
                let file = WatchedFile::new(&self.path);
                HttpRunners::from_inventory(file.interval(interval.unwrap_or(WatchedFile::INTERVAL)))
            }
            Mode::Kubernetes => self.cluster()?,
        };
        let mut runners = self.limited(runners).slots(self.slots);
        runners = runners.kind(self.kind).capacity_age(self.capacity_age_s.0);
        if let Some(limit) = self.probe_timeout_s.unless_zero() {
            runners = runners.probe_timeout(limit);
        }
        if let Some(interval) = self.probe_interval_s.unless_zero() {
            runners = runners.probe_interval(interval);
        }
        if !self.models.is_empty() {
            runners = runners.models(&self.models);
        }
        if !self.machine.is_empty() {
            runners = runners.machine(&self.machine);
        }
        if !self.api_key.0.is_empty() {
            runners = runners.api_key(&self.api_key.0);
        }
        Ok(Some(self.labels.iter().fold(runners, |runners, (key, value)| runners.label(key, value))))
    }

    fn limited(&self, runners: HttpRunners) -> HttpRunners {
        runners.max_runners(self.max_runners).drain_timeout(self.drain_s.0)
    }

    #[cfg(feature = "kubernetes")]
    fn cluster(&self) -> Result<HttpRunners, ConfigError> {
        use gateway_transport_http::Kubernetes;

        let mut pods = match (&*self.selector, &*self.service) {
            (selector, "") => Kubernetes::pods(selector),
            (_, service) => Kubernetes::service(service),
        };
        if !self.namespace.is_empty() {
            pods = pods.namespace(&self.namespace);
        }
        if !self.port.is_empty() {
            pods = pods.port(self.port.as_str());
        }
        if !self.label_prefix.is_empty() {
            pods = pods.label_prefix(&self.label_prefix);
        }
        Ok(HttpRunners::from_inventory(pods))
    }

    #[cfg(not(feature = "kubernetes"))]
    fn cluster(&self) -> Result<HttpRunners, ConfigError> {
        let problem = "this program was built without Kubernetes; build it with `--features kubernetes`";
        Err(ConfigError::at("discovery.mode", problem))
    }

    /// What belongs to another mode has no effect, which is never what was meant.
    fn check(&self) -> Result<(), ConfigError> {
        within("discovery.max_runners", self.max_runners, (1, usize::MAX))?;
        let (dns, file, cluster) = (Mode::Dns, Mode::File, Mode::Kubernetes);
        for (key, is_set, mode) in [
            ("names", !self.names.is_empty(), dns),
            ("path", !self.path.is_empty(), file),
            ("namespace", !self.namespace.is_empty(), cluster),
            ("selector", !self.selector.is_empty(), cluster),
            ("service", !self.service.is_empty(), cluster),
            ("port", !self.port.is_empty(), cluster),
            ("label_prefix", !self.label_prefix.is_empty(), cluster),
        ] {
            let key = format!("discovery.{key}");
            let mode_name = format!("{mode:?}").to_lowercase();
            if is_set && self.mode != mode {
                return Err(ConfigError::at(
                    &key,
                    format!("it has an effect with mode = \"{mode_name}\" only"),
                ));
            }
            let is_needed = mode == self.mode && matches!(mode, Mode::Dns | Mode::File);
            if is_needed && !is_set {
                return Err(ConfigError::at(&key, format!("mode = \"{mode_name}\" needs it")));
            }
        }
        if self.mode == cluster && self.selector.is_empty() == self.service.is_empty() {
            let problem = "mode = \"kubernetes\" needs either this or discovery.service";
            return Err(ConfigError::at("discovery.selector", problem));
        }
        if self.mode == Mode::Static {
            for (key, is_set) in [
                ("interval_s", !self.interval_s.0.is_zero()),
                ("models", !self.models.is_empty()),
                ("slots", self.slots > 0),
                ("labels", !self.labels.is_empty()),
                ("machine", !self.machine.is_empty()),
                ("api_key", !self.api_key.0.is_empty()),
                ("kind", self.kind != EngineKind::Auto),
                ("probe_interval_s", !self.probe_interval_s.0.is_zero()),
                ("probe_timeout_s", self.probe_timeout_s.0 != EngineLink::PROBE_TIMEOUT),
                ("capacity_age_s", self.capacity_age_s.0 != EngineLink::CAPACITY_AGE),
            ] {
                if is_set {
                    let problem = "it is for runners that are found; say it of each [[runner]] instead";
                    return Err(ConfigError::at(&format!("discovery.{key}"), problem));
                }
            }
        }
        if self.mode == cluster && !self.interval_s.0.is_zero() {
            return Err(ConfigError::at("discovery.interval_s", "a cluster tells by itself; remove it"));
        }
        Ok(())
    }
}
