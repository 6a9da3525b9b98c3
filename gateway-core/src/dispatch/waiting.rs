//! Waiting for a slot: what those who wait want, and how they choose.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::choose::{Choice, Chooser};
use super::plan::{Plan, Wish};
use crate::balance::Tried;
use crate::names::ModelId;
use crate::queue::{AdmissionQueue, Picker, Priority, Tenant};
use crate::routes::ModelRoutes;
use crate::runner::Runner;

/// On whose account a request is, how urgent it is, and how long it will wait for a slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// Whose request it is: tenants take turns.
    pub tenant: Option<Tenant>,
    /// How urgent it is.
    pub priority: Priority,
    /// How long it waits at most, for slots and for models to be loaded, all its waits taken together; the time
    /// that runners have it does not count. If it does not say: as long for slots, and for room for a model, as
    /// the [`QueuePolicy`](crate::QueuePolicy) says, and for a load that is under way until it ends.
    pub patience: Option<Duration>,
}

/// The queue of a dispatcher.
pub(super) type Queue = AdmissionQueue<NextChoice>;

/// What somebody waits for.
#[derive(Debug)]
pub(super) struct Wants {
    pub(super) plan: Plan,
    pub(super) tried: Vec<Tried>,
    /// Whether a fallback will do, too.
    pub(super) fallbacks: bool,
}

impl Wants {
    fn wishes(&self) -> impl Iterator<Item = Wish<'_>> {
        self.plan.all_wishes(self.fallbacks)
    }
}

/// Chooses for those who wait.
pub(super) struct NextChoice {
    pub(super) chooser: Chooser,
    pub(super) routes: Arc<ModelRoutes>,
}

impl Picker for NextChoice {
    type Wants = Wants;
    type Choice = Choice;

    fn pick(&self, wants: &Wants) -> Option<Choice> {
        let choose = |fallbacks| self.chooser.choose(&wants.plan, &wants.tried, fallbacks, Instant::now());
        choose(false).or_else(|| if wants.fallbacks { choose(true) } else { None })
    }

    fn concerns(&self, model: &ModelId, runner: &Runner) -> bool {
        let fleet = self.chooser.registry.fleet();
        let Some(runner) = fleet.current(runner.key()) else { return false };
        // A router of a stranger may know names that neither the fleet nor the routes do.
        let is_strange =
            fleet.model(model.as_str()).is_none() && self.routes.targets(model.as_str()).next().is_none();
        is_strange
            || runner.model(model.as_str()).is_some()
            || self.routes.targets(model.as_str()).any(|target| runner.model(target.as_str()).is_some())
    }

    fn may_serve(&self, wants: &Wants, runner: &Runner) -> bool {
        let fleet = self.chooser.registry.fleet();
        let now = fleet.current(runner.key());
        now.is_some_and(|runner| self.chooser.could(wants.wishes(), &wants.tried, runner, &fleet))
    }

    fn is_full(&self, wants: &Wants) -> bool {
        !self.chooser.could_anybody(wants.wishes(), &wants.tried)
    }

    fn is_hopeless(&self, wants: &Wants) -> bool {
        !self.chooser.is_anybody_eligible(wants.wishes(), &wants.tried)
    }
}
