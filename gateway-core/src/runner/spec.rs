use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::{Price, Resources};
use crate::features::Features;
use crate::names::RunnerId;

/// Free-form facts about a runner that a request can ask for, such as `zone=eu` or `rack=7`.
pub type Labels = BTreeMap<String, String>;

/// What kind of machine a runner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MachineKind {
    /// It computes on accelerators.
    Gpu,
    /// It computes on its processors only.
    Cpu,
}

/// The machine that a runner runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// The runner's own words for it, such as `gpu-server` or `cpu`.
    pub description: Option<String>,
    /// Hardware address, if known: `AA:BB:CC:DD:EE:FF`.
    pub mac_address: Option<String>,
}

impl Machine {
    /// Reads the kind out of the runner's own words: anything with `gpu` or `cuda` in it is a GPU
    /// machine, anything with `cpu` a CPU machine; otherwise unknown.
    pub fn kind(&self) -> Option<MachineKind> {
        // Asked on the way of a request, so nothing is copied.
        let words = self.description.as_deref()?.as_bytes();
        let has = |word: &str| words.windows(word.len()).any(|at| at.eq_ignore_ascii_case(word.as_bytes()));
        if has("gpu") || has("cuda") {
            return Some(MachineKind::Gpu);
        }
        has("cpu").then_some(MachineKind::Cpu)
    }
}

/// What a runner is: fixed from its joining to its leaving.
///
/// ```
/// use gateway_core::{RunnerId, RunnerSpec};
/// let spec = RunnerSpec::new(RunnerId::new("gpu-1")?).slots(8).machine("gpu").label("zone", "eu");
/// assert_eq!(spec.slots.map(|slots| slots.get()), Some(8));
/// # Ok::<(), gateway_core::InvalidName>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct RunnerSpec {
    /// Its stable id.
    pub id: RunnerId,
    /// A name for people.
    pub name: String,
    /// The machine it runs on.
    pub machine: Machine,
    /// Facts that requests can ask for.
    pub labels: Labels,
    /// The most requests it takes at once; `None` if it did not say, and then nothing is refused for it.
    pub slots: Option<NonZeroU32>,
    /// What its machine has for the gateway to give away, for a runner that does not report it; what it reports
    /// goes before. `None`: unknown, and then no request that needs resources is sent there.
    pub resources: Option<Resources>,
    /// What it cannot do of what requests may ask of an API. What is not in it is not known to be lacking, and is sent
    /// there.
    pub lacks: Features,
    /// What it costs; `None` if it did not say, and then a label may ([`Price::from_labels`]).
    pub price: Option<Price>,
}

impl RunnerSpec {
    /// A runner of which only the id is known.
    pub fn new(id: RunnerId) -> Self {
        let name = id.as_str().to_owned();
        Self {
            id,
            name,
            machine: Machine::default(),
            labels: Labels::new(),
            slots: None,
            resources: None,
            lacks: Features::NONE,
            price: None,
        }
    }

    /// Sets the name for people.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the most requests at once; 0 means unknown.
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = NonZeroU32::new(slots);
        self
    }

    /// Sets what its machine has, as long as it does not report that itself.
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = Some(resources);
        self
    }

    /// Adds to what it cannot do: requests that ask for any of it go to others.
    ///
    /// ```
    /// use gateway_core::{Feature, Features, RunnerId, RunnerSpec};
    /// let spec = RunnerSpec::new(RunnerId::new("text-only")?);
    /// let spec = spec.lacks(Features::TOOLS | Feature::Logprobs);
    /// assert!(spec.lacks.has(Feature::Functions));
    /// # Ok::<(), gateway_core::InvalidName>(())
    /// ```
    pub fn lacks(mut self, features: impl Into<Features>) -> Self {
        self.lacks = self.lacks.or(features.into());
        self
    }

    /// Sets what it costs. What is negative or no number counts as unknown.
    pub fn price(mut self, price: Price) -> Self {
        self.price = Some(price);
        self
    }

    /// Sets the machine's description.
    pub fn machine(mut self, description: impl Into<String>) -> Self {
        self.machine.description = Some(description.into());
        self
    }

    /// Adds a label.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }
}
