use super::{Pool, Refusal, Requirements, Router};
use crate::fleet::Fleet;
use crate::runner::{Model, ModelState, Runner, RunnerSet};

/// Matches typed requirements against what runners say they have: model, machine, resources, labels,
/// capability, what it asks of the API, modality, context length.
///
/// Runners that have the model loaded are preferred: others that would load it on demand are looked at
/// only when none that has it loaded can take the request, be it full, draining or of the wrong kind.
///
/// ```
/// use gateway_core::{CapabilityRouter, InMemoryRegistry, Registry, Requirements, Router};
/// let fleet = InMemoryRegistry::new().fleet();
/// assert!(CapabilityRouter.pool(&Requirements::default(), &fleet).runners().is_empty());
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct CapabilityRouter;

impl Router for CapabilityRouter {
    fn pool<'f>(&self, requirements: &Requirements, fleet: &'f Fleet) -> Pool<'f> {
        let Some(model) = &requirements.model else {
            return Pool::of(fleet.runners(), false);
        };
        let Some(entry) = fleet.model(model.as_str()) else {
            return Pool::empty();
        };
        let runners = if entry.loaded().is_empty() { entry.on_demand() } else { entry.loaded() };
        Pool::of(runners, is_exact(requirements, runners))
    }

    fn fallback<'f>(&self, requirements: &Requirements, fleet: &'f Fleet) -> Option<Pool<'f>> {
        let entry = fleet.model(requirements.model.as_ref()?.as_str())?;
        let is_news = !entry.loaded().is_empty() && !entry.on_demand().is_empty();
        let runners = entry.on_demand();
        is_news.then(|| Pool::of(runners, is_exact(requirements, runners)))
    }

    fn verdict(&self, requirements: &Requirements, runner: &Runner) -> Result<(), Refusal> {
        check(requirements, runner).map_err(Why::into_refusal)
    }

    fn accepts(&self, requirements: &Requirements, runner: &Runner) -> bool {
        check(requirements, runner).is_ok()
    }
}

/// Whether all of these, who have the model, are accepted. What none of them lacks makes no difference: most requests
/// that ask for something come to fleets where all can do it, and are to cost no more than others.
fn is_exact(requirements: &Requirements, runners: &RunnerSet) -> bool {
    let features = requirements.features;
    requirements.is_model_and_features_only()
        && (features.is_empty() || features.and(runners.lacking()).is_empty())
}

/// A refusal that is put into words only when somebody wants to read it: a choice asks many runners.
enum Why<'a> {
    Plain(Refusal),
    NotReady(&'a ModelState),
    Label(&'a str, &'a str),
}

impl Why<'_> {
    fn into_refusal(self) -> Refusal {
        match self {
            Self::Plain(refusal) => refusal,
            Self::NotReady(state) => Refusal::ModelNotReady(state.clone()),
            Self::Label(key, value) => Refusal::Label(format!("{key}={value}")),
        }
    }
}

impl From<Refusal> for Why<'_> {
    fn from(refusal: Refusal) -> Self {
        Self::Plain(refusal)
    }
}

fn check<'a>(requirements: &'a Requirements, runner: &'a Runner) -> Result<(), Why<'a>> {
    let status = runner.status();
    let mut model = None;
    if let Some(name) = &requirements.model {
        let found = runner.model(name.as_str()).ok_or(Refusal::UnknownModel)?;
        if !matches!(found.state, ModelState::Loaded | ModelState::OnDemand) {
            return Err(Why::NotReady(&found.state));
        }
        model = Some(found);
    }
    if !status.health.is_operational() {
        return Err(Refusal::Health(status.health).into());
    }
    if let Some(feature) = requirements.features.and(runner.spec().lacks).first() {
        return Err(Refusal::Lacks(feature).into());
    }
    check_machine(requirements, runner)?;
    if let Some(model) = model {
        check_model(requirements, model)?;
    }
    Ok(())
}

fn check_machine<'a>(requirements: &'a Requirements, runner: &Runner) -> Result<(), Why<'a>> {
    if requirements.machine.is_some() && runner.spec().machine.kind() != requirements.machine {
        return Err(Refusal::Machine.into());
    }
    for (key, value) in &requirements.labels {
        if runner.spec().labels.get(key) != Some(value) {
            return Err(Why::Label(key, value));
        }
    }
    if requirements.resources.as_ref().is_some_and(|need| !runner.could_have(need)) {
        return Err(Refusal::Resources.into());
    }
    if let Some(need) = requirements.capability {
        let reported = &runner.status().capabilities;
        if !reported.is_empty() && !reported.iter().any(|report| report.capability == need) {
            return Err(Refusal::Capability.into());
        }
    }
    Ok(())
}

fn check_model(requirements: &Requirements, model: &Model) -> Result<(), Refusal> {
    if model.modalities.is_some_and(|has| !has.covers(requirements.modalities)) {
        return Err(Refusal::Modality);
    }
    if let (Some(need), Some(has)) = (requirements.context_tokens, model.context_length)
        && has < need
    {
        return Err(Refusal::ContextLength(has));
    }
    Ok(())
}
