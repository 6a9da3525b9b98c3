//! Having one of the models loaded that will do.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::find::NotFound;
use super::plan::{Plan, Wish};
use super::run::Journey;
use crate::balance::Tried;
use crate::lifecycle::{LoadError, Loading, NoLoad};

/// How soon it is found out at the earliest that a load has ended in vain and there is no room for another.
const LOOK: Duration = Duration::from_secs(1);

/// What is to be loaded, and for whom.
#[derive(Clone, Copy)]
struct Sought<'s> {
    shared: &'s Shared,
    plan: &'s Plan,
    tried: &'s [Tried],
}

impl Sought<'_> {
    /// The first that can be loaded now, or else the first that can be once there is room for it.
    fn begin(&self, wishes: &[Wish<'_>]) -> Result<(usize, Loading), NoLoad> {
        let mut in_line = Err(NoLoad::Nobody);
        for (at, wish) in wishes.iter().enumerate() {
            match self.shared.lifecycle.try_ensure(wish.requirements, self.tried) {
                Ok(loading) if !loading.lacks_room() => return Ok((at, loading)),
                Ok(loading) => in_line = in_line.or(Ok((at, loading))),
                Err(NoLoad::TooMany) => in_line = in_line.or(Err(NoLoad::TooMany)),
                Err(NoLoad::Nobody) => {}
            }
        }
        in_line
    }

    /// Waits for the load, or for another of the models to be there. Whether it was the load.
    async fn wait_for(self, loading: &mut Loading) -> Result<bool, LoadError> {
        if self.plan.wishes(false).nth(1).is_none() {
            return loading.wait().await.map(|()| true);
        }
        match select(pin!(loading.wait()), pin!(self.until_one_is_there())).await {
            Either::Left((loaded, _)) => loaded.map(|()| true),
            Either::Right(((), _)) => Ok(false),
        }
    }

    async fn until_one_is_there(self) {
        loop {
            // Listening before looking: what changes after the look is not missed.
            let mut changed = pin!(self.shared.lifecycle.fleet_changed());
            changed.as_mut().enable();
            if self.shared.chooser.is_anybody_eligible(self.plan.wishes(false), self.tried) {
                return;
            }
            changed.await;
        }
    }
}

impl Journey<'_> {
    /// Waits until somebody has loaded one of the models that will do; the next of them is tried if one cannot
    /// be loaded. Nothing to hold on to if one is there that was not waited for.
    pub(super) async fn load(&mut self) -> Result<Option<Loading>, NotFound> {
        let began = Instant::now();
        let patience = self.patience();
        let own = self.claim.patience.and_then(|_| began.checked_add(patience));
        let until = own.into_iter().chain(self.total).min();
        let sought = Sought { shared: self.shared, plan: &self.plan, tried: &self.tried };
        let done = load_any(sought, until, patience).await;
        self.waited += began.elapsed();
        match done {
            Ok(done) => done,
            Err(_) if self.is_late() => Err(NotFound::Late),
            Err(_) => Err(NotFound::Impatient),
        }
    }

    /// In how long a runner that failed to load one of the models may be asked again.
    pub(super) fn loadable_in(&self) -> Option<Duration> {
        let models = self.plan.wishes(false).filter_map(|wish| wish.requirements.model.as_ref());
        models.filter_map(|model| self.shared.lifecycle.retry_after(model)).min()
    }
}

/// Waits until then in any case, and only so long for room.
async fn load_any(
    sought: Sought<'_>,
    until: Option<Instant>,
    patience: Duration,
) -> Result<Result<Option<Loading>, NotFound>, Elapsed> {
    let mut wishes: Vec<_> = sought.plan.wishes(false).collect();
    let mut last = None;
    let why = loop {
        let (at, mut loading) = match sought.begin(&wishes) {
            Ok(begun) => begun,
            Err(NoLoad::Nobody) => break NotFound::Nobody,
            Err(NoLoad::TooMany) => break NotFound::TooMany,
        };
        let waited = loop {
            // While it is being loaded it is enough to look from time to time whether it still is.
            let look = if loading.lacks_room() { patience } else { patience.max(LOOK) };
            let for_room = Instant::now().checked_add(look);
            let wait = sought.wait_for(&mut loading);
            let Some(end) = for_room.into_iter().chain(until).min() else { break wait.await };
            match timeout_at(end, wait).await {
                Ok(waited) => break waited,
                Err(elapsed) if loading.lacks_room() || until == Some(end) => return Err(elapsed),
                // A load that is under way has a limit of its own.
                Err(_) => {}
            }
        };
        match waited {
            Ok(is_its_own) => return Ok(Ok(Some(loading).filter(|_| is_its_own))),
            Err(error) => last = Some(error),
        }
        wishes.remove(at);
    };
    Ok(Err(last.map_or(why, NotFound::NotLoaded)))
}
