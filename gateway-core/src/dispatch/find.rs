//! Finding a runner: at once, by waiting for a slot, by having a model loaded, or with another model.

use std::time::Duration;

use super::choose::Choice;
use super::error::{DispatchError, DispatchErrorKind};
use super::run::Journey;

/// Why there is no runner.
#[derive(Debug)]
pub(super) enum NotFound {
    /// Somebody could serve, but is full.
    Full,
    /// Nobody could.
    Nobody,
}

impl Journey<'_> {
    pub(super) async fn find(&mut self) -> Result<Choice, NotFound> {
        if let Some(choice) = self.shared.chooser.choose(&self.plan, &self.tried, false) {
            return Ok(choice);
        }
        let full = self.shared.chooser.is_anybody_eligible(&self.plan, &self.tried, false);
        if self.plan.has_fallbacks()
            && let Some(choice) = self.shared.chooser.choose(&self.plan, &self.tried, true)
        {
            return Ok(choice);
        }
        Err(if full { NotFound::Full } else { NotFound::Nobody })
    }

    pub(super) fn is_anybody_waiting(&self) -> bool {
        false
    }

    /// Nobody could be picked and nobody was tried: says why.
    pub(super) fn nobody(&self, why: Option<NotFound>) -> DispatchError {
        let named = self.plan.named();
        let fail = |kind| DispatchError::new(kind, &self.id, named.model.as_ref());
        if let Some(NotFound::Full) = why {
            return fail(DispatchErrorKind::Overloaded).retrying_after(Duration::from_secs(1));
        }
        let fleet = self.shared.chooser.registry.fleet();
        let mut refusals = Vec::new();
        let mut opens_in: Option<Duration> = None;
        let mut known = named.model.is_none();
        for wish in self.plan.wishes(false).chain(self.plan.wishes(true)) {
            let entry = wish.model().and_then(|model| fleet.model(model.as_str()));
            known |= entry.is_some();
            let pool = self.shared.chooser.router.pool(wish.requirements, &fleet);
            // A router of a stranger may know names that the fleet does not.
            known |= !pool.runners().is_empty();
            let candidates = self.shared.chooser.candidates(pool, wish.requirements, &self.tried);
            opens_in = opens_in.into_iter().chain(candidates.opens_in()).min();
            let runners = entry.map_or(fleet.runners(), |entry| entry.known());
            let room = DispatchError::MAX_REFUSALS - refusals.len();
            let refused =
                runners.iter().filter_map(|runner| Some((runner.id().clone(), candidates.refusal(runner)?)));
            refusals.extend(refused.take(room));
        }
        if !known {
            return fail(DispatchErrorKind::UnknownModel);
        }
        // In whole seconds, because that is what a client is told: not too soon.
        let wait = opens_in.map_or(5, |time| time.as_secs() + 1);
        fail(DispatchErrorKind::NoneEligible).refused_by(refusals).retrying_after(Duration::from_secs(wait))
    }
}
