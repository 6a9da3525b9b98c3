//! Who could serve a request, and why the others could not.

mod capability;
mod requirements;

use std::fmt;
use std::sync::Arc;

pub use capability::CapabilityRouter;
pub use requirements::Requirements;

use crate::features::Feature;
use crate::fleet::Fleet;
use crate::runner::{Health, ModelState, Runner, RunnerSet};

/// Says which runners could serve a request. It does not choose between them: that is the
/// [`Balancer`](crate::Balancer)'s part. Nor does it look at load.
///
/// See the example `custom_router`.
pub trait Router: Send + Sync + 'static {
    /// The runners worth looking at, from an index of the fleet if there is one. Called on every try.
    fn pool<'f>(&self, requirements: &Requirements, fleet: &'f Fleet) -> Pool<'f>;

    /// The runners to look at when nobody of the pool can be reserved. None unless a router says so.
    fn fallback<'f>(&self, requirements: &Requirements, fleet: &'f Fleet) -> Option<Pool<'f>> {
        let _ = (requirements, fleet);
        None
    }

    /// Whether one runner could serve the request, and if not, why. Must agree with
    /// [`pool`](Router::pool) and [`fallback`](Router::fallback): a runner that it accepts is in one of them.
    fn verdict(&self, requirements: &Requirements, runner: &Runner) -> Result<(), Refusal>;

    /// Whether [`verdict`](Router::verdict) is that it could. Asked of many runners for one choice: worth
    /// writing if a verdict allocates in saying why not.
    fn accepts(&self, requirements: &Requirements, runner: &Runner) -> bool {
        self.verdict(requirements, runner).is_ok()
    }
}

/// The runners that a [`Router`] thinks worth looking at.
#[derive(Debug, Clone, Copy)]
pub struct Pool<'f> {
    runners: &'f [Arc<Runner>],
    set: Option<&'f RunnerSet>,
    exact: bool,
}

impl<'f> Pool<'f> {
    /// A set of the fleet. `exact` says that every one of them is known to be accepted, so that no verdict
    /// need be asked for.
    pub fn of(set: &'f RunnerSet, exact: bool) -> Self {
        Self { runners: set, set: Some(set), exact }
    }

    /// Some runners in a row. Strategies then have no index of them and look at one after the other.
    pub fn slice(runners: &'f [Arc<Runner>], exact: bool) -> Self {
        Self { runners, set: None, exact }
    }

    /// The same runners, each of which needs a verdict: for a router that asks for more than the one whose
    /// pool it takes.
    pub fn inexact(self) -> Self {
        Self { exact: false, ..self }
    }

    /// Nobody.
    pub fn empty() -> Self {
        Self::slice(&[], true)
    }

    /// The runners.
    pub fn runners(&self) -> &'f [Arc<Runner>] {
        self.runners
    }

    /// The set that they are, if they are one.
    pub fn set(&self) -> Option<&'f RunnerSet> {
        self.set
    }

    /// Whether every one of them is known to be accepted.
    pub fn is_exact(&self) -> bool {
        self.exact
    }
}

/// Why a runner cannot serve a request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Refusal {
    /// It does not have the model.
    UnknownModel,
    /// It has the model, but not ready to serve.
    ModelNotReady(ModelState),
    /// It is not operational.
    Health(Health),
    /// It takes nothing new.
    Draining,
    /// Its circuit breaker is open: it failed too often.
    CircuitOpen,
    /// Its circuit breaker is half-open, and as many requests as may are finding out whether it is well.
    Probing,
    /// Every slot is taken.
    Full,
    /// The request was tried on it already.
    AlreadyTried,
    /// It is not, or does not say that it is, the kind of machine that is needed.
    Machine,
    /// It does not have, or does not report, the resources that are needed.
    Resources,
    /// It has the resources that are needed, but not free.
    ResourcesTaken,
    /// It lacks this label.
    Label(String),
    /// It cannot do what is needed.
    Capability,
    /// It lacks this, which the request asks for.
    Lacks(Feature),
    /// Its model does not take or give what is needed.
    Modality,
    /// Its model's context is shorter than needed; this many tokens.
    ContextLength(u32),
    /// A reason of a router of your own.
    Other(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownModel => f.write_str("does not have the model"),
            Self::ModelNotReady(state) => match state {
                ModelState::Available => f.write_str("has the model, but not loaded"),
                ModelState::Loading { .. } => f.write_str("is loading the model"),
                ModelState::Unloading => f.write_str("is unloading the model"),
                ModelState::Failed { .. } => f.write_str("failed to load the model"),
                ModelState::Loaded | ModelState::OnDemand => f.write_str("has the model"),
            },
            Self::Health(health) => write!(f, "is {}", health.as_str()),
            Self::Draining => f.write_str("is draining"),
            Self::CircuitOpen => f.write_str("failed too often and is left alone for a while"),
            Self::Probing => f.write_str("failed too often and is being tried with few requests"),
            Self::Full => f.write_str("is full"),
            Self::AlreadyTried => f.write_str("was tried already"),
            Self::Machine => f.write_str("is not the kind of machine that is needed"),
            Self::Resources => f.write_str("does not have the resources that are needed"),
            Self::ResourcesTaken => f.write_str("does not have the resources that are needed free"),
            Self::Label(label) => write!(f, "lacks the label {label}"),
            Self::Capability => f.write_str("lacks the capability that is needed"),
            Self::Lacks(feature) => {
                write!(f, "cannot do {} (`{}`)", feature.words(), feature.field())
            }
            Self::Modality => f.write_str("does not handle the kind of input or output that is needed"),
            Self::ContextLength(tokens) => write!(f, "has a context of {tokens} tokens, too short"),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}
