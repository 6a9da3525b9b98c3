//! Models come into memory because requests ask for them, and go when nobody does.
//!
//! # Why no request is sent to a model that is being unloaded
//!
//! A model is unloaded in three steps: it is *closed* ([`Registry::update`] with
//! [`ModelChange::Unloading`]), the command is sent, and it is *opened* again when the fleet shows it as
//! loaded the next time. Requests pick from a snapshot that may be old, so what counts is not what they saw
//! but what they touch: the count of a model's users, which all snapshots of a registration share.
//!
//! - Closing is one compare-and-swap of that count from "nobody, open" to "nobody, closed". It fails if
//!   anybody has begun to use the model, and then nothing has happened: nothing has to be rolled back.
//! - A reservation adds itself to the same word before it is made and sees whether the model was closed
//!   before. If so there is no reservation, and nothing can be sent: the dispatcher sends only with one.
//! - The two are steps on one word, so one of them is first. If the reservation is, closing fails; if closing
//!   is, the reservation does.
//! - It stays closed after the unload, because somebody may still hold a snapshot of the time when it was
//!   loaded.
//!
//! Who waits for a load holds a [`Loading`] until it has its reservation, and what is held is not evicted:
//! two who wait for each other's memory take turns instead of evicting each other's model before it has
//! served.

mod by_hand;
mod error;
mod line;
mod loading;
mod order;
mod policy;
mod report;
mod room;
mod spot;
mod state;
mod tend;
mod wanted;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use by_hand::OrderError;
pub use error::LoadError;
pub use loading::Loading;
pub use policy::{IdleUnload, LifecyclePolicy};
pub use report::{LoadEnd, ModelLoad};

use crate::balance::{Candidates, Tried};
use crate::bell::Listener;
use crate::dispatch::Observer;
use crate::fleet::Fleet;
use crate::health::HealthPolicy;
use crate::names::{ModelId, RunnerKey};
use crate::registry::{Registry, RunnerChange};
use crate::router::{Requirements, Router};
use crate::runner::{ModelChange, ModelState, Runner};
use line::{Line, News};
use loading::{Held, Stage};
use order::{Busy, load};
use spot::{Found, Look, Spot};
use state::{Act, Ask, Job, Record, State};
use wanted::Wanted;
pub(crate) use wanted::Wants;

/// Why there is nothing to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoLoad {
    Nobody,
    /// So many wait already that it was not even looked.
    TooMany,
}

/// Loads models that requests ask for, makes room for them, and unloads what nobody asks for any more.
///
/// A model that is on a runner's disk ([`ModelState::Available`]) is loaded there when a request asks for it
/// and nobody has it loaded who can serve it: once for any number of requests, on the runner that is best for it.
/// Runners that load models by themselves ([`ModelState::OnDemand`]) are left to do so.
///
/// Who has it loaded and takes nothing new, is not operational, cannot be reached or has been failing for more
/// than a few seconds does not count. But a request that failed on a runner which has the model does not have it
/// loaded on another: it may be the request.
///
/// Cheap to clone; clones share everything. One per registry: the second would respect what the first has
/// under way, but not know who waits for it.
#[derive(Clone)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

/// What it goes by, which may change while it is at work.
struct Rules {
    router: Arc<dyn Router>,
    health: HealthPolicy,
    policy: LifecyclePolicy,
    observers: Vec<Arc<dyn Observer>>,
}

pub(crate) struct Inner {
    registry: Arc<dyn Registry>,
    rules: ArcSwap<Rules>,
    /// Never held while the registry is changed: who is told of that may come back here.
    state: Mutex<State>,
    fleet_changed: Notify,
    /// Who waits for room. Held for a few steps only, also by whoever frees a slot.
    line: Mutex<Line>,
    /// How many hold a [`Loading`].
    waiting: AtomicUsize,
    wanted: Wanted,
}

impl Lifecycle {
    /// A lifecycle of the models of these runners. Router and health policy are those by which requests are
    /// dispatched: nothing is loaded where requests would not go.
    pub fn new(
        registry: Arc<dyn Registry>,
        router: Arc<dyn Router>,
        health: HealthPolicy,
        policy: LifecyclePolicy,
    ) -> Self {
        Self::observed(registry, router, health, policy, Vec::new())
    }

    pub(crate) fn observed(
        registry: Arc<dyn Registry>,
        router: Arc<dyn Router>,
        health: HealthPolicy,
        policy: LifecyclePolicy,
        observers: Vec<Arc<dyn Observer>>,
    ) -> Self {
        let inner = Arc::new(Inner {
            registry,
            rules: ArcSwap::from_pointee(Rules { router, health, policy, observers }),
            state: Mutex::default(),
            fleet_changed: Notify::new(),
            line: Mutex::default(),
            waiting: AtomicUsize::new(0),
            wanted: Wanted::default(),
        });
        let listener: Weak<dyn Listener> = Arc::downgrade(&(inner.clone() as Arc<dyn Listener>));
        inner.registry.fleet().bell().listen(listener);
        Self { inner }
    }

    /// What it goes by.
    pub fn policy(&self) -> LifecyclePolicy {
        self.inner.rules().policy.clone()
    }

    /// Goes by other rules from now on. What is under way ends by the old ones; whoever [tends](Lifecycle::tend) has to
    /// begin anew if the keep-alive times are others.
    pub(crate) fn go_by(
        &self,
        router: Arc<dyn Router>,
        health: HealthPolicy,
        policy: LifecyclePolicy,
        observers: Vec<Arc<dyn Observer>>,
    ) {
        self.inner.rules.store(Arc::new(Rules { router, health, policy, observers }));
    }

    /// Sees to it that somebody can serve the request: joins a load that is under way, or begins one. To be
    /// called when nobody could serve it even if every slot were free: who is only full is waited for, and
    /// counts here as ready. `tried` are the runners that the request does not get again.
    ///
    /// `None` if nobody has the model on disk who could serve the request with it, or all of them failed at
    /// it a moment ago (then [`Lifecycle::retry_after`] says how long that is held against them), or the request
    /// may itself be why it failed on a runner that has the model, or too many wait already. If somebody has loaded
    /// it in this very moment, what is returned is ready at once.
    ///
    /// Nothing happens until [`Loading::wait`] is called.
    pub fn ensure(&self, requirements: &Requirements, tried: &[Tried]) -> Option<Loading> {
        self.try_ensure(requirements, tried).ok()
    }

    /// The same, and says why not.
    pub(crate) fn try_ensure(&self, requirements: &Requirements, tried: &[Tried]) -> Result<Loading, NoLoad> {
        let inner = &self.inner;
        let model =
            requirements.model.clone().filter(|_| inner.rules().policy.enabled).ok_or(NoLoad::Nobody)?;
        // Most requests that nobody can serve ask for what nobody has.
        inner.registry.fleet().model(model.as_str()).ok_or(NoLoad::Nobody)?;
        let number = inner.state().number();
        let ask = Ask::new(model, requirements, tried, number);
        // Counted before the first look, so that whoever frees something later knows of it.
        let mut loading = Loading::new(inner.clone(), ask).ok_or(NoLoad::TooMany)?;
        loading.look(News::Anywhere).then_some(loading).ok_or(NoLoad::Nobody)
    }

    /// Rings when runners, or what they have loaded, change.
    pub(crate) fn fleet_changed(&self) -> Notified<'_> {
        self.inner.fleet_changed.notified()
    }

    /// Neither evicts nor unloads these models until the guard is dropped, wherever they are: somebody waits for
    /// a slot with one of them. In use they are not yet, and if it is the one slot that all models share which
    /// is waited for, each would look idle to whoever needs room for another.
    pub(crate) fn want<'m>(&self, models: impl IntoIterator<Item = &'m ModelId>) -> Wants {
        Wants::new(self.inner.clone(), models.into_iter().cloned().collect())
    }

    /// How many requests wait for a model.
    pub fn waiting(&self) -> usize {
        self.inner.waiting.load(Ordering::SeqCst)
    }

    /// When the first runner that failed to load the model may be asked again.
    pub fn retry_after(&self, model: &ModelId) -> Option<Duration> {
        let now = Instant::now();
        let state = self.inner.state();
        let fleet = self.inner.registry.fleet();
        let until = fleet.model(model.as_str())?.known().iter().filter_map(|runner| {
            let model = runner.model(model.as_str())?;
            state.record(runner.key())?.spared_until(&model.id, Act::Load, now)
        });
        until.min().map(|until| until - now)
    }

    /// Unloads models whose keep-alive time is up, until `stop` is cancelled. The host runs it once, in a
    /// task of its own; without it nothing is unloaded for being idle. Unloads that are under way when it
    /// ends are given up: nothing is sent to those models until their runner has said how it is.
    pub async fn tend(&self, stop: &CancellationToken) {
        tend::tend(&self.inner, stop).await;
    }
}

impl Inner {
    fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `false` if it cannot be made.
    fn change(&self, runner: &RunnerKey, model: &ModelId, change: ModelChange) -> bool {
        self.registry.update(runner, RunnerChange::Model(model.clone(), change))
    }

    fn record(&self, runner: &RunnerKey, write: impl FnOnce(&mut Record)) {
        let fleet = self.registry.fleet();
        write(self.state().record_mut(runner, &fleet));
    }

    fn record_failure(&self, runner: &RunnerKey, model: &ModelId, act: Act) {
        let backoff = self.rules().policy.backoff;
        self.record(runner, |record| record.failed(model, act, &backoff, Instant::now()));
    }

    fn is_ready(&self, ask: &Ask) -> bool {
        self.is_ready_in(&self.registry.fleet(), ask)
    }

    /// Whether somebody could serve if only a slot were free.
    fn is_ready_in(&self, fleet: &Fleet, ask: &Ask) -> bool {
        let Rules { router, health, .. } = &*self.rules();
        let any = |pool| {
            let candidates = Candidates::new(pool, &**router, &ask.requirements, &ask.tried);
            candidates.under(health).has_busy()
        };
        any(router.pool(&ask.requirements, fleet))
            || router.fallback(&ask.requirements, fleet).is_some_and(any)
    }

    /// The next thing to wait for. `None` if there is nothing. Who is in line already need not look further
    /// than where there is news.
    fn advance(self: &Arc<Self>, ask: &Arc<Ask>, news: &News) -> Option<Stage> {
        let mut guard = self.state();
        let state = &mut *guard;
        // Read under the lock: a load that has ended is in this snapshot, one that has not is among the jobs.
        let fleet = self.registry.fleet();
        let now = Instant::now();
        // Before the look, so that whoever frees something after it knows whom to call.
        let was_in_line = self.line().enter(ask, now);
        let Rules { router, health, policy, .. } = &*self.rules();
        let router = &**router;
        let (wanted, line) = (&self.wanted, &self.line);
        let look = Look { router, health, policy, state, wanted, line, fleet: &fleet, now };
        let stage = if let News::On(runners) = news {
            // What a freed slot changes is what the runner that freed it has room for.
            match look.find_on(ask, runners) {
                Some(spot) => Some(self.begin(state, spot)),
                None => Some(Stage::Room),
            }
        } else if self.is_ready_in(&fleet, ask) {
            Some(Stage::Ready)
        } else if let Some(id) = joinable(&look, ask) {
            state.jobs.iter_mut().find(|job| job.id == id).map(|job| {
                job.holders += 1;
                Stage::Job(Held { inner: self.clone(), id, work: job.work.clone() })
            })
        } else {
            match look.find(ask) {
                Found::Nobody => None,
                Found::Coming => Some(Stage::Coming),
                Found::Later => Some(Stage::Room),
                Found::Spot(spot) => Some(self.begin(state, spot)),
            }
        };
        drop(guard);
        match stage {
            Some(Stage::Room) => {}
            _ if was_in_line => self.leave_line(ask),
            // While it was there nobody came after it or saw it.
            _ => self.line().remove(ask),
        }
        stage
    }

    fn begin(self: &Arc<Self>, state: &mut State, spot: Spot) -> Stage {
        let (id, runner) = (state.number(), spot.runner.key().clone());
        let local = spot.local.clone();
        state.busy.insert(runner.clone());
        let busy = Busy { inner: self.clone(), runner: runner.clone() };
        let work = load(self.clone(), spot, busy).boxed().shared();
        state.jobs.push(Job { id, runner, local, holders: 1, work: work.clone() });
        Stage::Job(Held { inner: self.clone(), id, work })
    }

    /// One who held a job less. The last one takes it away, and with it the load if it has not ended.
    fn let_go(&self, id: u64) {
        let mut state = self.state();
        let Some(at) = state.jobs.iter().position(|job| job.id == id) else { return };
        state.jobs[at].holders -= 1;
        let last = (state.jobs[at].holders == 0).then(|| state.jobs.swap_remove(at));
        drop(state);
        if let Some(job) = last {
            // What it loaded may be evicted from now on.
            self.freed_on(&job.runner);
        }
    }

    /// There may be room on a runner where there was none.
    fn freed_on(&self, runner: &RunnerKey) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        if let Some(runner) = self.registry.fleet().current(runner) {
            let calls = self.line().call_for(runner);
            calls.make();
        }
    }

    /// Has those who wait for room look for it everywhere.
    fn call_all(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            let calls = self.line().call(None, |_| true);
            calls.make();
        }
    }

    fn leave_line(&self, ask: &Ask) {
        let calls = self.line().leave(ask);
        calls.make();
    }
}

/// A load under way that would do.
fn joinable(look: &Look<'_>, ask: &Ask) -> Option<u64> {
    let is_under_way = |job: &&Job| job.work.peek().is_none();
    let would_do = |job: &&Job| {
        let runner = look.fleet.current(&job.runner);
        runner.is_some_and(|runner| {
            let model = runner.model(ask.model.as_str());
            model.is_some_and(|model| *model.local_name() == job.local) && look.fits(ask, runner)
        })
    };
    look.state.jobs.iter().filter(is_under_way).find(would_do).map(|job| job.id)
}

impl Listener for Inner {
    fn slot_freed(&self, runner: &Arc<Runner>) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let is_idle = |name: &str| runner.model_usage(name).is_some_and(|(in_flight, _)| in_flight == 0);
        let mut models = runner.status().models.iter();
        if models.any(|model| model.state == ModelState::Loaded && is_idle(model.id.as_str())) {
            self.freed_on(runner.key());
        }
    }

    fn fleet_changed(&self) {
        self.fleet_changed.notify_waiters();
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifecycle").field("policy", &self.inner.rules().policy).finish_non_exhaustive()
    }
}
