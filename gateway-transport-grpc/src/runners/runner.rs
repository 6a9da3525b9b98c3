//! One entry of a list.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use gateway_core::{Feature, Features, InvalidName, Labels, Model, ModelId, Resources, RunnerId, RunnerSpec};

use crate::address::{GrpcAddress, InvalidGrpcAddress};
use crate::contract::Dialect;
use crate::link::{GrpcLink, GrpcLinkBuilder, InvalidGrpcLink, Shared};
use crate::translate::PromptTemplate;

/// What the contract has no place for. Where an answer ends is seen to on this side.
const LACKS: Features = Features::ALL.without(Feature::Stop);

/// An entry of [`GrpcRunners`](crate::GrpcRunners) that cannot be used. The others are not touched by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGrpcRunner {
    /// Its address.
    #[error(transparent)]
    Address(#[from] InvalidGrpcAddress),
    /// Its token.
    #[error(transparent)]
    Link(#[from] InvalidGrpcLink),
    /// Its id, or the name of one of its models.
    #[error("the worker at {address} cannot be used: {source}")]
    Name {
        /// Where it is.
        address: String,
        /// What is wrong with the name.
        source: InvalidName,
    },
    /// Another entry has its id.
    #[error("two workers have the id {id}; give one of them another")]
    Twice {
        /// The id.
        id: String,
    },
}

/// One worker, coordinator or sidecar that speaks the contract, and what is known of it beforehand.
///
/// ```
/// use gateway_transport_grpc::GrpcRunner;
///
/// let runner = GrpcRunner::new("unix:///run/cy_sidecar.sock")?
///     .id("sidecar-1")
///     .slots(8)
///     .label("zone", "eu")
///     .models(["qwen-7b"]);
/// assert!(runner.validate().is_ok());
/// # Ok::<(), gateway_transport_grpc::InvalidGrpcAddress>(())
/// ```
#[derive(Clone)]
pub struct GrpcRunner {
    address: GrpcAddress,
    link: GrpcLinkBuilder,
    spec: RunnerSpec,
    models: Option<Vec<ModelId>>,
    probe_interval: Option<Duration>,
    problem: Option<InvalidGrpcRunner>,
}

impl GrpcRunner {
    /// A worker whose id is its address. Its models and health are asked from it.
    ///
    /// # Errors
    ///
    /// If the address has none of the forms of [`GrpcAddress`].
    pub fn new(address: impl AsRef<str>) -> Result<Self, InvalidGrpcAddress> {
        let address = GrpcAddress::parse(address)?;
        let shown = address.to_string();
        let id = RunnerId::new(&shown).map_err(|_| address.too_long())?;
        Ok(Self {
            address,
            link: GrpcLink::builder(shown),
            spec: RunnerSpec::new(id).lacks(LACKS),
            models: None,
            probe_interval: None,
            problem: None,
        })
    }

    /// Its id.
    pub fn runner_id(&self) -> &RunnerId {
        &self.spec.id
    }

    /// Sets the id, and with it the name for people. Default: its address.
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

    /// Sets the most requests at once; 0 means unknown. Default: as many streams as the worker's server allows, less
    /// four for questions, if it says so when it joins; the contract has no other word for it.
    pub fn slots(mut self, slots: u32) -> Self {
        self.spec.slots = NonZeroU32::new(slots);
        self
    }

    /// Fixes the models: the worker is not asked for them, and joins before it was heard of.
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

    /// Sets what the machine has for the gateway to give away: the contract does not tell it. Requests that need
    /// resources are not sent to a runner of which nobody says what it has.
    pub fn resources(mut self, resources: Resources) -> Self {
        self.spec = self.spec.resources(resources);
        self
    }

    /// Sends `authorization: Bearer TOKEN` with every call. Default: the list's.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.link = self.link.token(token);
        self
    }

    /// How messages become a prompt. Default: the list's, which is [`PromptTemplate::Document`].
    pub fn template(mut self, template: PromptTemplate) -> Self {
        self.link = self.link.template(template);
        self
    }

    /// The adapter for requests that do not name one. Default: the list's, which is none.
    pub fn adapter(mut self, adapter: impl Into<String>) -> Self {
        self.link = self.link.adapter(adapter);
        self
    }

    /// Says which dialect it speaks. Default: the list's, which is to find it out.
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.link = self.link.dialect(dialect);
        self
    }

    /// Sets what else there is to set of its link.
    pub fn link(mut self, set: impl FnOnce(GrpcLinkBuilder) -> GrpcLinkBuilder) -> Self {
        self.link = set(self.link);
        self
    }

    /// How long to wait between two probes, give or take a tenth. Default: the list's, which is
    /// [`GrpcRunners::PROBE_INTERVAL`](crate::GrpcRunners::PROBE_INTERVAL).
    pub fn probe_interval(mut self, interval: Duration) -> Self {
        self.probe_interval = Some(interval);
        self
    }

    /// Whether it can be used.
    ///
    /// # Errors
    ///
    /// The first thing that was wrong with what the setters were given.
    pub fn validate(&self) -> Result<(), InvalidGrpcRunner> {
        self.problem.clone().map_or(Ok(()), Err)?;
        self.link.clone().build_for(self.address.clone())?;
        Ok(())
    }

    /// What this entry leaves open is taken from `defaults`.
    pub(super) fn or(mut self, defaults: &Defaults) -> Self {
        if self.models.is_none()
            && let Some(models) = &defaults.models
        {
            self = self.models(models);
        }
        if self.spec.machine.description.is_none() {
            self.spec.machine.description.clone_from(&defaults.machine);
        }
        for (key, value) in &defaults.labels {
            self.spec.labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        self.spec.slots = self.spec.slots.or(defaults.slots);
        self.probe_interval = self.probe_interval.or(defaults.probe_interval);
        self.link = self.link.or(&defaults.link);
        self
    }

    pub(super) fn into_parts(self) -> Result<Parts, InvalidGrpcRunner> {
        self.problem.map_or(Ok(()), Err)?;
        let interval = self.probe_interval.unwrap_or(super::GrpcRunners::PROBE_INTERVAL);
        Ok(Parts {
            link: self.link.build_for(self.address)?,
            spec: self.spec,
            models: self.models.map(|models| models.into_iter().map(Model::loaded).collect()),
            // A quicker pace than a thousand a second is a mistake.
            interval: interval.max(Duration::from_millis(1)),
        })
    }

    fn misnamed(&mut self, source: InvalidName) {
        let problem = InvalidGrpcRunner::Name { address: self.address.to_string(), source };
        self.problem.get_or_insert(problem);
    }
}

impl fmt::Debug for GrpcRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the token.
        f.debug_struct("GrpcRunner")
            .field("id", &self.spec.id)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// An entry that is fit for use.
pub(super) struct Parts {
    pub(super) link: GrpcLink,
    pub(super) spec: RunnerSpec,
    /// `None`: ask the worker.
    pub(super) models: Option<Vec<Model>>,
    pub(super) interval: Duration,
}

/// What a list says for all entries that do not say it themselves.
#[derive(Clone, Default)]
pub(super) struct Defaults {
    pub(super) models: Option<Vec<String>>,
    pub(super) slots: Option<NonZeroU32>,
    pub(super) machine: Option<String>,
    pub(super) labels: Labels,
    pub(super) probe_interval: Option<Duration>,
    pub(super) link: Shared,
}
