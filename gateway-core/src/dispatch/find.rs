//! Finding a runner: at once, by waiting for a slot, by having the model loaded, or with another model.

use std::time::Duration;

use tokio::time::Instant;

use super::choose::Choice;
use super::error::{DispatchError, DispatchErrorKind};
use super::run::Journey;
use super::waiting::Wants;
use crate::features::{Feature, Features};
use crate::fleet::Fleet;
use crate::lifecycle::{LoadError, Loading};
use crate::queue::{QueueError, QueueErrorKind, Waiter};

/// How often a request has its model loaded before it gives up.
const MOST_LOADS: u32 = 8;

/// Why there is no runner.
#[derive(Debug)]
pub(super) enum NotFound {
    /// Nobody could serve, even if every slot were free.
    Nobody,
    /// Somebody could, but the queue has no place, or the wait for a slot was in vain.
    Full(QueueError),
    /// Somebody may have the model on its disk, but too many wait for models already.
    TooMany,
    /// Somebody has the model on its disk, and could not load it.
    NotLoaded(LoadError),
    /// The time for the whole request was up.
    Late,
    /// It would not wait any longer for a model to be loaded.
    Impatient,
}

impl Journey<'_> {
    /// A reservation on a runner that could serve now, if nobody else has waited for one.
    pub(super) fn find_at_once(&self, now: Instant) -> Option<Choice> {
        // Who waits already has the better claim to what is free.
        if self.is_anybody_waiting() {
            return None;
        }
        self.shared.chooser.choose(&self.plan, &self.tried, false, now)
    }

    /// A reservation on a runner that could serve, as soon as there is one: nobody could [at
    /// once](Journey::find_at_once).
    pub(super) async fn find(&mut self) -> Result<Choice, NotFound> {
        let not_found = match self.find_named().await {
            Ok(choice) => return Ok(choice),
            Err(not_found) => not_found,
        };
        match self.plan.fallback_line() {
            Some(_) if !self.is_late() => self.find_fallback(not_found).await,
            _ => Err(not_found),
        }
    }

    /// The same for the fallbacks, if nothing was found for what it names.
    async fn find_fallback(&mut self, not_found: NotFound) -> Result<Choice, NotFound> {
        // Who has waited in vain takes what there is and waits no more.
        let has_waited = matches!(not_found, NotFound::Full(_) | NotFound::Impatient);
        let line = self.plan.fallback_line();
        let is_anybody_waiting = line.is_some_and(|line| self.shared.queue.has_waiters(line, true));
        let chooser = &self.shared.chooser;
        if (has_waited || !is_anybody_waiting)
            && let Some(choice) = chooser.choose(&self.plan, &self.tried, true, Instant::now())
        {
            return Ok(choice);
        }
        if has_waited || !chooser.is_anybody_eligible(self.plan.wishes(true), &self.tried) {
            return Err(not_found);
        }
        match self.wait(true).await {
            Err(error) if error.kind() == QueueErrorKind::NotEligible => Err(not_found),
            waited => waited.map_err(NotFound::Full),
        }
    }

    /// The same for what the request names, fallbacks left aside.
    async fn find_named(&mut self) -> Result<Choice, NotFound> {
        let shared = self.shared;
        let chooser = &shared.chooser;
        // Held until there is a reservation: till then what was loaded for it is not evicted.
        let mut _loaded: Option<Loading> = None;
        // What was loaded may be gone again before the request has its turn, but not time and again.
        for round in 0..MOST_LOADS {
            if round > 0
                && let Some(choice) = self.find_at_once(Instant::now())
            {
                return Ok(choice);
            }
            if chooser.is_anybody_eligible(self.plan.wishes(false), &self.tried) {
                match self.wait(false).await {
                    Ok(choice) => return Ok(choice),
                    // Whoever could serve has gone; another may have the model on its disk.
                    Err(error) if error.kind() == QueueErrorKind::NotEligible => {}
                    Err(error) => return Err(NotFound::Full(error)),
                }
            }
            _loaded = self.load().await?;
        }
        Err(NotFound::Nobody)
    }

    /// Waits for a slot: in the line of what it names, or in that of its first fallback.
    async fn wait(&mut self, fallbacks: bool) -> Result<Choice, QueueError> {
        let began = Instant::now();
        // Lest the model be evicted before the request has its turn.
        let models = self.plan.wishes(fallbacks).filter_map(|wish| wish.requirements.model.as_ref());
        let wanted = self.shared.lifecycle.want(models);
        let wants = Wants { plan: self.plan.clone(), tried: self.tried.clone(), fallbacks };
        let line = if fallbacks { self.plan.fallback_line() } else { None };
        let line = line.unwrap_or_else(|| self.plan.line()).clone();
        let waiter = Waiter {
            special: fallbacks || self.is_special(),
            tenant: self.claim.tenant.clone(),
            priority: self.claim.priority,
            patience: Some(self.patience()),
            until: self.total,
            ..Waiter::new(wants, line)
        };
        let waited = self.shared.queue.wait(waiter).await;
        self.waited += began.elapsed();
        self.queued += began.elapsed();
        if waited.is_ok() {
            wanted.served();
        }
        waited
    }

    /// What is left of it.
    pub(super) fn patience(&self) -> Duration {
        match self.claim.patience {
            Some(patience) => patience.saturating_sub(self.waited),
            None => self.shared.queue.policy().patience.saturating_sub(self.queued),
        }
    }

    pub(super) fn is_late(&self) -> bool {
        self.total.is_some_and(|total| total <= Instant::now())
    }

    /// Whether what nobody else found for this model could still be something for this request.
    fn is_special(&self) -> bool {
        !self.tried.is_empty() || !self.plan.named().is_model_only()
    }

    pub(super) fn is_anybody_waiting(&self) -> bool {
        self.shared.queue.has_waiters(self.plan.line(), self.is_special())
    }

    /// Nobody could be picked and nobody was tried: says why.
    pub(super) fn nobody(&self, why: Option<NotFound>) -> DispatchError {
        let named = self.plan.named();
        let fail = |kind| DispatchError::new(kind, &self.id, named.model.as_ref());
        // Of those who need more than a slot, each is told what was missing where.
        let is_refused = |error: &QueueError| {
            let is_off = self.shared.queue.policy().max_waiting == 0;
            is_off && error.kind() != QueueErrorKind::TimedOut && named.resources.is_some()
        };
        if let Some(NotFound::Full(error)) = &why
            && !is_refused(error)
        {
            let kind = match error.kind() {
                QueueErrorKind::TimedOut => DispatchErrorKind::QueueTimeout,
                _ if self.shared.queue.policy().max_waiting == 0 => DispatchErrorKind::Overloaded,
                _ => DispatchErrorKind::QueueFull,
            };
            return fail(kind).retrying_after(error.retry_after());
        }
        if let Some(NotFound::TooMany) = why {
            return fail(DispatchErrorKind::QueueFull).retrying_after(Duration::from_secs(5));
        }
        if let Some(NotFound::Impatient) = why {
            return fail(DispatchErrorKind::QueueTimeout).retrying_after(Duration::from_secs(5));
        }
        if let Some(NotFound::Late) = why {
            return fail(DispatchErrorKind::Deadline);
        }
        if let Some(NotFound::NotLoaded(error)) = why {
            return fail(DispatchErrorKind::ModelNotLoaded)
                .because_of_load(error)
                .retrying_after(self.loadable_in().unwrap_or(Duration::from_secs(5)));
        }
        let chooser = &self.shared.chooser;
        let fleet = chooser.registry.fleet();
        let mut refusals = Vec::new();
        let mut opens_in: Option<Duration> = None;
        let mut known = named.model.is_none();
        for wish in self.plan.all_wishes(true) {
            let entry = wish.model().and_then(|model| fleet.model(model.as_str()));
            known |= entry.is_some();
            let pool = chooser.router.pool(wish.requirements, &fleet);
            // A router of a stranger may know names that the fleet does not.
            known |= !pool.runners().is_empty();
            let candidates = chooser.candidates(pool, wish.requirements, &self.tried);
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
        if let Some(feature) = self.lacking(&fleet) {
            return fail(DispatchErrorKind::Lacking(feature)).refused_by(refusals);
        }
        // In whole seconds, because that is what a client is told: not too soon.
        let soonest = opens_in.into_iter().chain(self.loadable_in()).min();
        let wait = soonest.map_or(5, |time| time.as_secs() + 1);
        fail(DispatchErrorKind::NoneEligible).refused_by(refusals).retrying_after(Duration::from_secs(wait))
    }

    /// What the request asks for and no runner that has the model can do, be it well or not: waiting does not help. If
    /// each lacks something else, it is what the first of them lacks.
    fn lacking(&self, fleet: &Fleet) -> Option<Feature> {
        let asked = self.plan.named().features;
        if asked.is_empty() {
            return None;
        }
        let entries = self.plan.all_wishes(true).filter_map(|wish| fleet.model(wish.model()?.as_str()));
        let mut lacking =
            entries.flat_map(|entry| entry.known()).map(|runner| asked.and(runner.spec().lacks));
        let first = lacking.next()?;
        let mut by_all = first;
        let mut can_all = |lacks: Features| {
            by_all = by_all.and(lacks);
            lacks.is_empty()
        };
        if can_all(first) || lacking.any(can_all) {
            return None;
        }
        by_all.first().or(first.first())
    }
}
