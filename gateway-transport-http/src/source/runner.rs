//! One entry of a fixed list.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use gateway_core::{InvalidName, Labels, ModelId, Resources, RunnerId, RunnerSpec};
use http::{HeaderValue, header};

use crate::address::{Address, InvalidAddress};
use crate::engine::{EngineKind, EngineLink};
use crate::link::HttpLink;

/// An entry of [`HttpRunners`](crate::HttpRunners) that cannot be used. The others are not touched by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRunner {
    /// Its address.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// Its id, or the name of one of its models.
    #[error("the runner at {address} cannot be used: {source}")]
    Name {
        /// Where it is.
        address: String,
        /// What is wrong with the name.
        source: InvalidName,
    },
    /// Its API key.
    #[error("the API key for the runner at {address} has characters that no header can have")]
    ApiKey {
        /// Where it is.
        address: String,
    },
}

/// One runner with an HTTP address, and what is known of it beforehand.
///
/// ```
/// use gateway_transport_http::HttpRunner;
///
/// let runner = HttpRunner::new("http://10.0.0.5:8000")?
///     .id("gpu-1")
///     .machine("gpu")
///     .label("zone", "eu")
///     .slots(8)
///     .models(["llama-3-8b"]);
/// assert!(runner.validate().is_ok());
/// # Ok::<(), gateway_transport_http::InvalidAddress>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRunner {
    address: Address,
    spec: RunnerSpec,
    models: Option<Vec<ModelId>>,
    kind: EngineKind,
    probe_interval: Option<Duration>,
    probe_timeout: Option<Duration>,
    capacity_age: Option<Duration>,
    api_key: Option<HeaderValue>,
    problem: Option<InvalidRunner>,
}

impl HttpRunner {
    /// A runner whose id is its `host:port`. Its models, slots and health are asked from its engine.
    ///
    /// # Errors
    ///
    /// If the address is not a plain `http://` URL.
    pub fn new(address: impl AsRef<str>) -> Result<Self, InvalidAddress> {
        let address = Address::parse(address.as_ref())?;
        let id = RunnerId::new(address.authority()).map_err(|_| address.too_long())?;
        Ok(Self {
            address,
            spec: RunnerSpec::new(id),
            models: None,
            kind: EngineKind::Auto,
            probe_interval: None,
            probe_timeout: None,
            capacity_age: None,
            api_key: None,
            problem: None,
        })
    }

    /// Its id.
    pub fn runner_id(&self) -> &RunnerId {
        &self.spec.id
    }

    /// Host and port of its address.
    pub(crate) fn host_and_port(&self) -> (String, u16) {
        self.address.host_and_port()
    }

    /// Connects to `address` instead of where its host leads. Requests still name the host: one name may
    /// stand for many runners.
    pub fn connect_to(mut self, address: SocketAddr) -> Self {
        self.address = self.address.at(address);
        self
    }

    /// Sets the id, and with it the name for people. Default: `host:port`.
    pub fn id(mut self, id: impl AsRef<str>) -> Self {
        match RunnerId::new(id) {
            Ok(id) => {
                self.spec.name = id.as_str().to_owned();
                self.spec.id = id;
            }
            Err(source) => self.misnamed(source),
        }
        self
    }

    /// Sets the most requests at once; 0 means unknown. Default: what the engine tells, if it tells.
    pub fn slots(mut self, slots: u32) -> Self {
        self.spec.slots = NonZeroU32::new(slots);
        self
    }

    /// Fixes the models: the engine is not asked for them, and the runner joins before it was heard of. Only its
    /// health is asked then, and its capacity if its [kind](HttpRunner::kind) says that it has one.
    pub fn models<M: AsRef<str>>(mut self, models: impl IntoIterator<Item = M>) -> Self {
        match models.into_iter().map(ModelId::new).collect() {
            Ok(models) => self.models = Some(models),
            Err(source) => self.misnamed(source),
        }
        self
    }

    /// Sets the machine's description, such as `gpu`.
    pub fn machine(mut self, description: impl Into<String>) -> Self {
        self.spec = self.spec.machine(description);
        self
    }

    /// Adds a label.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec = self.spec.label(key, value);
        self
    }

    /// Says what answers there, so that only questions for that are asked. Default: the list's, which is to find
    /// it out.
    pub fn kind(mut self, kind: EngineKind) -> Self {
        self.kind = kind;
        self
    }

    /// Sets what the machine has for the gateway to give away, for an engine that does not report it. Requests
    /// that need resources are not sent to a runner of which nobody says what it has.
    pub fn resources(mut self, resources: Resources) -> Self {
        self.spec = self.spec.resources(resources);
        self
    }

    /// How long to wait between two probes, give or take a tenth. Default: the list's, which is
    /// [`HttpRunners::PROBE_INTERVAL`](crate::HttpRunners::PROBE_INTERVAL), or
    /// [`HttpRunners::CAPACITY_INTERVAL`](crate::HttpRunners::CAPACITY_INTERVAL) for one that reports capacity.
    pub fn probe_interval(mut self, interval: Duration) -> Self {
        self.probe_interval = Some(interval);
        self
    }

    /// How long all questions of one probe may take together. Default: the list's, which is
    /// [`EngineLink::PROBE_TIMEOUT`].
    pub fn probe_timeout(mut self, limit: Duration) -> Self {
        self.probe_timeout = Some(limit);
        self
    }

    /// How old the capacity may be that it reports when it is asked. Default: the list's, which is
    /// [`EngineLink::CAPACITY_AGE`].
    pub fn capacity_age(mut self, age: Duration) -> Self {
        self.capacity_age = Some(age);
        self
    }

    /// Sends `authorization: Bearer KEY` to the engine with every request and probe.
    pub fn api_key(mut self, key: impl AsRef<str>) -> Self {
        match HeaderValue::from_str(&format!("Bearer {}", key.as_ref())) {
            Ok(mut value) => {
                value.set_sensitive(true);
                self.api_key = Some(value);
            }
            Err(_) => {
                let problem = InvalidRunner::ApiKey { address: self.address.to_string() };
                self.problem.get_or_insert(problem);
            }
        }
        self
    }

    /// Whether it can be used.
    ///
    /// # Errors
    ///
    /// The first thing that was wrong with what the setters were given.
    pub fn validate(&self) -> Result<(), InvalidRunner> {
        self.problem.clone().map_or(Ok(()), Err)
    }

    /// What this entry leaves open is taken from `defaults`.
    pub(super) fn or(mut self, defaults: &Defaults) -> Self {
        if self.models.is_none()
            && let Some(models) = &defaults.models
        {
            self = self.models(models);
        }
        if self.api_key.is_none()
            && let Some(key) = &defaults.api_key
        {
            self = self.api_key(key);
        }
        if self.spec.machine.description.is_none() {
            self.spec.machine.description.clone_from(&defaults.machine);
        }
        for (key, value) in &defaults.labels {
            self.spec.labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        self.spec.slots = self.spec.slots.or(defaults.slots);
        if self.kind == EngineKind::Auto {
            self.kind = defaults.kind;
        }
        self.probe_interval = self.probe_interval.or(defaults.probe_interval);
        self.probe_timeout = self.probe_timeout.or(defaults.probe_timeout);
        self.capacity_age = self.capacity_age.or(defaults.capacity_age);
        self
    }

    pub(super) fn into_parts(mut self) -> Result<Parts, InvalidRunner> {
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        let mut link = HttpLink::builder("");
        if let Some(key) = self.api_key {
            link = link.header(header::AUTHORIZATION, key);
        }
        if self.kind != EngineKind::Auto {
            self.spec.labels.entry(ENGINE.to_owned()).or_insert_with(|| self.kind.to_string());
        }
        let link = EngineLink::new(link.build_for(self.address)).kind(self.kind);
        let link = link.capacity_age(self.capacity_age.unwrap_or(EngineLink::CAPACITY_AGE));
        Ok(Parts {
            link: link.probe_timeout(self.probe_timeout.unwrap_or(EngineLink::PROBE_TIMEOUT)),
            spec: self.spec,
            models: self.models,
            // A quicker pace than a thousand a second is a mistake.
            interval: self.probe_interval.map(|interval| interval.max(Duration::from_millis(1))),
        })
    }

    fn misnamed(&mut self, source: InvalidName) {
        let problem = InvalidRunner::Name { address: self.address.to_string(), source };
        self.problem.get_or_insert(problem);
    }
}

/// The label that says what kind of engine it is, unless the operator has set it.
pub(super) const ENGINE: &str = "engine";

/// An entry that is fit for use.
pub(super) struct Parts {
    pub(super) link: EngineLink,
    pub(super) spec: RunnerSpec,
    /// `None`: ask the engine.
    pub(super) models: Option<Vec<ModelId>>,
    /// `None`: as its kind needs.
    pub(super) interval: Option<Duration>,
}

/// What a list says for all entries that do not say it themselves.
#[derive(Clone, Default)]
pub(super) struct Defaults {
    pub(super) models: Option<Vec<String>>,
    pub(super) slots: Option<NonZeroU32>,
    pub(super) machine: Option<String>,
    pub(super) labels: Labels,
    pub(super) kind: EngineKind,
    pub(super) probe_interval: Option<Duration>,
    pub(super) probe_timeout: Option<Duration>,
    pub(super) capacity_age: Option<Duration>,
    pub(super) api_key: Option<String>,
}
