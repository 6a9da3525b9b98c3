use std::fmt;
use std::time::Duration;

use super::outcome::{Cancel, Fault, Outcome};
use crate::error::BoxError;
use crate::features::Feature;
use crate::lifecycle::LoadError;
use crate::link::LinkError;
use crate::names::{ModelId, RequestId, RunnerId};
use crate::router::Refusal;

/// Why a request got no answer from any runner.
#[derive(Debug)]
pub struct DispatchError(Box<Inner>);

/// Boxed, so that the way of success does not carry its size.
#[derive(Debug)]
struct Inner {
    kind: DispatchErrorKind,
    request_id: RequestId,
    model: Option<ModelId>,
    runner: Option<RunnerId>,
    tries: u32,
    refusals: Vec<(RunnerId, Refusal)>,
    retry_after: Option<Duration>,
    source: Option<BoxError>,
}

/// The kinds of [`DispatchError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DispatchErrorKind {
    /// No runner knows the model.
    UnknownModel,
    /// Runners know the model or match the request, but none of them can serve it now.
    NoneEligible,
    /// Every runner that could serve it is full, and there is no queue.
    Overloaded,
    /// Every runner that could serve it is full, and so is the queue or the tenant's share of it; or too many wait
    /// for models to be loaded.
    QueueFull,
    /// It waited for a slot, or for its model to be loaded, for as long as it would.
    QueueTimeout,
    /// Runners have the model on their disks, and none could load it.
    ModelNotLoaded,
    /// The gateway is shutting down and takes nothing new.
    Draining,
    /// Runners were tried, and each failed; the last one like this.
    RunnerFailed(Fault),
    /// No runner that could serve it could be reached.
    Unreachable,
    /// The time for the whole request was up.
    Deadline,
    /// The request's own body broke off.
    RequestBody,
    /// Runners know the model, but none of them, however they are, can do all that the request asks of the API; this for
    /// one.
    Lacking(Feature),
    /// No runner that could serve it can do what it asks for, such as to change to another protocol.
    Unsupported,
}

impl DispatchError {
    pub(super) fn new(kind: DispatchErrorKind, request_id: &RequestId, model: Option<&ModelId>) -> Self {
        Self(Box::new(Inner {
            kind,
            request_id: request_id.clone(),
            model: model.cloned(),
            runner: None,
            tries: 0,
            refusals: Vec::new(),
            retry_after: None,
            source: None,
        }))
    }

    pub(super) fn on(mut self, runner: &RunnerId) -> Self {
        self.0.runner = Some(runner.clone());
        self
    }

    pub(super) fn after(mut self, tries: usize) -> Self {
        self.0.tries = u32::try_from(tries).unwrap_or(u32::MAX);
        self
    }

    pub(super) fn because(mut self, source: Option<LinkError>) -> Self {
        self.0.source = source.map(Into::into);
        self
    }

    pub(super) fn because_of_load(mut self, error: LoadError) -> Self {
        self.0.source = Some(error.into());
        self
    }

    pub(super) fn refused_by(mut self, refusals: Vec<(RunnerId, Refusal)>) -> Self {
        self.0.refusals = refusals;
        self
    }

    pub(super) fn retrying_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> DispatchErrorKind {
        self.0.kind
    }

    /// The request.
    pub fn request_id(&self) -> &RequestId {
        &self.0.request_id
    }

    /// The model that was asked for.
    pub fn model(&self) -> Option<&ModelId> {
        self.0.model.as_ref()
    }

    /// The runner that failed last.
    pub fn runner(&self) -> Option<&RunnerId> {
        self.0.runner.as_ref()
    }

    /// On how many runners it was tried.
    pub fn tries(&self) -> u32 {
        self.0.tries
    }

    /// Why runners could not serve it, at most [`DispatchError::MAX_REFUSALS`] of them. For admins: it
    /// names machines.
    pub fn refusals(&self) -> &[(RunnerId, Refusal)] {
        &self.0.refusals
    }

    /// How many refusals are kept.
    pub const MAX_REFUSALS: usize = 32;

    /// When another attempt makes sense, if it does.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether the same request may well succeed later.
    pub fn is_retryable(&self) -> bool {
        use DispatchErrorKind as K;
        match self.0.kind {
            K::NoneEligible
            | K::Overloaded
            | K::QueueFull
            | K::QueueTimeout
            | K::ModelNotLoaded
            | K::Draining
            | K::RunnerFailed(_)
            | K::Unreachable => true,
            K::UnknownModel | K::Deadline | K::RequestBody | K::Lacking(_) | K::Unsupported => false,
        }
    }
}

impl fmt::Display for DispatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = What(self.0.model.as_ref());
        match self.0.kind {
            DispatchErrorKind::UnknownModel => write!(f, "no runner has {what}")?,
            DispatchErrorKind::NoneEligible => write!(f, "no runner can serve {what} now")?,
            DispatchErrorKind::Overloaded => write!(f, "every runner that serves {what} is full")?,
            DispatchErrorKind::QueueFull => {
                write!(f, "every runner that serves {what} is full, and so is the queue")?;
            }
            DispatchErrorKind::QueueTimeout => write!(f, "no runner that serves {what} became free in time")?,
            DispatchErrorKind::ModelNotLoaded => write!(f, "{what} could not be loaded")?,
            DispatchErrorKind::Draining => f.write_str("the gateway is shutting down")?,
            DispatchErrorKind::RunnerFailed(fault) => {
                write!(f, "the runner failed: {}", Outcome::RunnerFault(fault))?;
            }
            DispatchErrorKind::Unreachable => write!(f, "no runner that serves {what} can be reached")?,
            DispatchErrorKind::Deadline => f.write_str("the time for the request is up")?,
            DispatchErrorKind::RequestBody => f.write_str("the request's body broke off")?,
            DispatchErrorKind::Lacking(feature) => {
                write!(f, "no runner that has {what} can do {} (`{}`)", feature.words(), feature.field())?;
            }
            DispatchErrorKind::Unsupported => f.write_str("no runner can do what the request asks for")?,
        }
        if let Some(runner) = &self.0.runner {
            write!(f, " (runner {runner})")?;
        }
        write!(f, " [{}]", self.0.request_id)
    }
}

/// What was asked for: a request need not name a model.
struct What<'a>(Option<&'a ModelId>);

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(model) => write!(f, "the model `{model}`"),
            None => f.write_str("the request"),
        }
    }
}

impl std::error::Error for DispatchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| &**source as _)
    }
}

/// Why an answer broke off after it had begun.
#[derive(Debug, thiserror::Error)]
#[error("runner {runner} broke off the answer to {request_id}: {outcome}")]
pub struct BodyError {
    runner: RunnerId,
    request_id: RequestId,
    outcome: Outcome,
    #[source]
    source: Option<LinkError>,
}

impl BodyError {
    pub(super) fn new(
        runner: &RunnerId,
        request_id: &RequestId,
        outcome: Outcome,
        source: Option<LinkError>,
    ) -> Self {
        Self { runner: runner.clone(), request_id: request_id.clone(), outcome, source }
    }

    /// The runner that was answering.
    pub fn runner(&self) -> &RunnerId {
        &self.runner
    }

    /// Whether the time for the whole request was up, rather than the runner at fault.
    pub fn is_deadline(&self) -> bool {
        self.outcome == Outcome::Cancelled(Cancel::Deadline)
    }

    /// Whether the answer stood still for longer than the idle time.
    pub fn is_idle_timeout(&self) -> bool {
        self.outcome == Outcome::RunnerFault(Fault::IdleTimeout)
    }
}
