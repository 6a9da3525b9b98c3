//! The runner model: what a runner is, what it says of itself, and what is counted of it here.

mod board;
mod latch;
#[cfg(test)]
mod latch_tests;
mod ledger;
mod live;
mod loads;
mod measured;
mod orders;
mod peak;
mod price;
mod reservation;
mod resources;
mod set;
mod slots;
mod spec;
mod status;
mod turns;
mod typical;
mod usage;
mod verdict;

/// What the counters are made of. A test puts loom's types here.
mod sync {
    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
}

use std::fmt;
use std::sync::{Arc, Weak};

use tokio::time::Instant;

pub(crate) use board::{ASSUMED_SLOTS, Board, Look, Sign};
use board::{Spot, Take};
pub(crate) use ledger::Ledger;
use ledger::Moment;
pub use live::Load;
pub(crate) use live::{Live, wait_for};
pub(crate) use loads::Least;
pub use measured::Measured;
pub(crate) use measured::{Sample, Speed};
pub use orders::ModelChange;
pub use price::Price;
pub use reservation::Reservation;
pub use resources::{ResourceReport, Resources};
pub use set::RunnerSet;
pub use spec::{Labels, Machine, MachineKind, RunnerSpec};
pub(crate) use status::json_string;
pub use status::{
    Capability, CapabilityReport, Health, Modalities, Modality, Model, ModelState, ReportedLoad, RunnerStatus,
};
pub(crate) use turns::{Tick, weight};
pub(crate) use typical::Typical;
pub use verdict::ProbeVerdict;

use orders::Order;
use reservation::Booking;
use usage::Usage;

use crate::bell::Bell;
use crate::health::{Admitted, HealthPolicy, Probe, Standing};
use crate::link::RunnerLink;
use crate::names::{ModelId, RunnerId, RunnerKey};
use crate::router::Requirements;

/// What all runners of one registry share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    pub(crate) board: Arc<Board>,
    pub(crate) bell: Arc<Bell>,
}

/// One runner of a [`Fleet`](crate::Fleet): its description at that moment, its [`RunnerLink`], and the
/// counters that every snapshot of the same registration shares.
///
/// Description and status never change inside a `Runner`: a change makes a new one in a new snapshot.
// In this order, so that what a pick needs lies beside the reference counts, in one cache line, and behind it what its
// request needs: in a large fleet the lines that have to be fetched are most of what a runner more costs.
#[repr(C)]
pub struct Runner {
    hot: Hot,
    live: Arc<Live>,
    link: Arc<dyn RunnerLink>,
    key: RunnerKey,
    id_header: http::HeaderValue,
    /// One for each model of the status, in its order.
    usage: Vec<Arc<Usage>>,
    /// Of the id, for consistent hashing.
    id_hash: u64,
    price: Option<Price>,
    spec: Arc<RunnerSpec>,
    status: RunnerStatus,
    /// Those of models that the runner lists no more, as long as somebody uses them.
    past_usage: Vec<(ModelId, Weak<Usage>)>,
    /// What is known of models beside what the runner says. Mostly empty.
    orders: Vec<Order>,
    /// The states of models in the runner's own words, in the order of the status; empty if there are no
    /// orders: then they are what the status says.
    reported: Vec<ModelState>,
}

/// What every pick needs of a runner.
#[repr(C)]
struct Hot {
    spot: Spot,
    bell: Arc<Bell>,
    /// The first of [`Runner::usage`]: most runners have one model.
    usage: Option<Arc<Usage>>,
    is_operational: bool,
    /// Whether it has a name of its own for any of its models.
    has_local_names: bool,
}

impl Hot {
    fn new(spot: &Spot, bell: &Arc<Bell>, status: &RunnerStatus, usage: &[Arc<Usage>]) -> Self {
        Self {
            spot: spot.clone(),
            bell: bell.clone(),
            usage: usage.first().cloned(),
            is_operational: status.health.is_operational(),
            has_local_names: status.models.iter().any(|model| model.local_json().is_some()),
        }
    }

    fn under(&self, status: &RunnerStatus, usage: &[Arc<Usage>]) -> Self {
        Self::new(&self.spot, &self.bell, status, usage)
    }
}

impl Runner {
    pub(crate) fn new(
        key: RunnerKey,
        spec: RunnerSpec,
        status: RunnerStatus,
        link: Arc<dyn RunnerLink>,
        place: &Place,
        ledger: Arc<Ledger>,
    ) -> Self {
        let live = Arc::new(Live::new(spec.slots, place, ledger));
        if let Some(resources) = &spec.resources {
            live.ledger().assume(resources);
        }
        live.report(status.load, &status.resources);
        let usage: Vec<_> = status.models.iter().map(|_| Arc::new(Usage::new())).collect();
        let id_header = http::HeaderValue::from_bytes(key.id.as_str().as_bytes())
            .unwrap_or(http::HeaderValue::from_static("unprintable"));
        let id_hash = stable_hash(key.id.as_str().as_bytes());
        let price = spec.price.filter(Price::is_sound).or_else(|| Price::from_labels(&spec.labels));
        let hot = Hot::new(live.seat().spot(), &place.bell, &status, &usage);
        Self {
            hot,
            key,
            id_header,
            id_hash,
            price,
            spec: Arc::new(spec),
            status,
            link,
            live,
            usage,
            past_usage: Vec::new(),
            orders: Vec::new(),
            reported: Vec::new(),
        }
    }

    /// Id and generation of this registration.
    pub fn key(&self) -> &RunnerKey {
        &self.key
    }

    /// The runner's stable id.
    pub fn id(&self) -> &RunnerId {
        &self.key.id
    }

    /// The id as a header value, made once so that answers copy nothing.
    pub fn id_header(&self) -> &http::HeaderValue {
        &self.id_header
    }

    /// A hash of the id, the same in every process: gateways that do not know each other agree on it.
    pub(crate) fn id_hash(&self) -> u64 {
        self.id_hash
    }

    /// What it costs, if it or one of its labels says so. Read once, when it joins.
    pub fn price(&self) -> Option<Price> {
        self.price
    }

    /// What does not change while the runner stays registered.
    pub fn spec(&self) -> &RunnerSpec {
        &self.spec
    }

    /// What the runner last said of itself.
    pub fn status(&self) -> &RunnerStatus {
        &self.status
    }

    /// How the runner is reached.
    pub fn link(&self) -> &Arc<dyn RunnerLink> {
        &self.link
    }

    /// The model of this runner that a client means by `name`: its canonical id or its local name.
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.status.models.get(self.model_at(name)?)
    }

    fn model_at(&self, name: &str) -> Option<usize> {
        let models = &self.status.models;
        let by_id = models.iter().position(|model| model.id.as_str() == name);
        by_id.or_else(|| models.iter().position(|model| model.local_name().as_str() == name))
    }

    /// How many requests for a model are under way on this runner, under whatever of its names; and when the
    /// last one ended, or it was loaded or began to be, whichever is latest (at first: when it was seen
    /// first). `None` if the runner does not know the model.
    pub fn model_usage(&self, name: &str) -> Option<(u32, Instant)> {
        let local = self.model(name)?.local_name();
        let each = self.usages_of(local).map(|usage| (usage.in_flight(), usage.last_used()));
        each.reduce(|a, b| (a.0.saturating_add(b.0), a.1.max(b.1)))
    }

    /// The name to put on the wire for `model`, as a JSON string, or `None` if the name that the client
    /// used is the runner's own.
    pub(crate) fn rename(&self, name: &ModelId) -> Option<&bytes::Bytes> {
        if !self.hot.has_local_names {
            return None;
        }
        let model = self.status.models.iter().find(|model| model.id == *name)?;
        model.local_json()
    }

    /// Load as counted here and as reported, at this moment.
    pub fn load(&self) -> Load {
        self.load_at(Instant::now())
    }

    /// As [`Runner::load`], for a caller that has read the clock already.
    pub fn load_at(&self, now: Instant) -> Load {
        self.live.load(now)
    }

    /// Whether new requests may go to it at all: it says it is operational, and it is not draining.
    pub fn is_available(&self) -> bool {
        self.hot.is_operational && !self.hot.spot.is_closed()
    }

    /// When this registration joined.
    pub fn joined(&self) -> Instant {
        self.live.born()
    }

    /// When it last said how it is, be it in joining.
    pub fn last_heard(&self) -> Instant {
        self.live.heard()
    }

    /// Whether the gateway has been told to send nothing new to this runner.
    pub fn is_draining(&self) -> bool {
        self.live.is_draining()
    }

    /// Whether this registration has left the registry.
    pub fn has_left(&self) -> bool {
        self.live.has_left()
    }

    /// What is free of its machine for certain: as it last reported, less what is promised to requests of ours
    /// that the report need not have in it. Of requests that end, what they had is free at once; of those that
    /// are broken off, when a report says so. `None` if neither the runner nor its [spec](RunnerSpec::resources)
    /// says.
    pub fn available_resources(&self) -> Option<Resources> {
        self.live.ledger().available()
    }

    /// All that its machine has; if it says only what is free, then as much as is known to have been free. `None`
    /// if it says neither.
    pub fn total_resources(&self) -> Option<Resources> {
        self.live.ledger().total()
    }

    /// Whether its machine has so much to give, be it free now or not. One that does not say what there is, but
    /// what is free, might; one that says nothing has not.
    pub fn could_have(&self, need: &Resources) -> bool {
        self.live.ledger().might_cover(need)
    }

    /// Whether so much is free now.
    #[inline]
    pub(crate) fn has_free(&self, need: &Resources) -> bool {
        self.live.ledger().covers(need)
    }

    /// Takes a slot, if one is free, the runner is available and its circuit breaker lets the request in.
    /// Choose and count are this one step. While the breaker is half-open, the reservation is a probe and
    /// holds one of the counted places.
    ///
    /// Never waits. The slot is given back when the [`Reservation`] is dropped, and in no other way.
    pub fn try_reserve(self: &Arc<Self>) -> Option<Reservation> {
        self.reserve(Booking::default())
    }

    /// As [`Runner::try_reserve`], and counts what the request is known to need: its tokens, its model and
    /// its resources. `None` too if the resources are not free.
    pub fn try_reserve_for(self: &Arc<Self>, requirements: &Requirements) -> Option<Reservation> {
        let model = requirements.model.as_ref().and_then(|name| self.model_at(name.as_str()));
        self.try_reserve_with(requirements, model.and_then(|at| u32::try_from(at).ok()))
    }

    /// The same, by one who knows the place of the request's model in the runner's status.
    #[inline]
    pub(crate) fn try_reserve_with(
        self: &Arc<Self>,
        requirements: &Requirements,
        model: Option<u32>,
    ) -> Option<Reservation> {
        let workload = &requirements.workload;
        self.reserve(Booking {
            tokens: workload.tokens(),
            prefill_tokens: workload.prompt_tokens.unwrap_or(0),
            resources: requirements.resources,
            promised: Moment::default(),
            model,
        })
    }

    #[inline]
    fn reserve(self: &Arc<Self>, mut booking: Booking) -> Option<Reservation> {
        if !self.hot.is_operational || self.hot.spot.look().is_none() {
            return None;
        }
        // The slot last: nobody who waits for a slot is told of one that was taken in vain.
        if !booking.begin(self) {
            return None;
        }
        if !booking.is_plain() {
            self.live.book(&booking);
        }
        let taken = match &booking.resources {
            None => self.take(),
            Some(need) => {
                let taken = self.live.ledger().take_with(need, Instant::now(), || self.take());
                taken.map(|(promised, probe)| {
                    booking.promised = promised;
                    probe
                })
            }
        };
        let Some(probe) = taken else {
            if !booking.is_plain() {
                self.live.unbook(&booking);
            }
            booking.undo(self);
            return None;
        };
        Some(Reservation::new(self.clone(), booking, probe))
    }

    /// A slot, and the place of a probe that it may take.
    #[inline]
    fn take(&self) -> Option<Option<Probe>> {
        match self.hot.spot.take() {
            Take::Taken => Some(None),
            Take::Shut => None,
            Take::Reluctant => self.take_if_admitted(),
        }
    }

    /// A slot, if the breaker lets the request in, and the place of a probe that it may take.
    #[cold]
    fn take_if_admitted(&self) -> Option<Option<Probe>> {
        let mut probe = match self.live.conduct().admit(Instant::now)? {
            Admitted::Freely => None,
            Admitted::Probing(probe) => Some(probe),
        };
        if self.hot.spot.take_anyway() {
            return Some(probe);
        }
        if let Some(probe) = &mut probe {
            self.live.conduct().give_back(probe);
        }
        None
    }

    fn give_back(self: &Arc<Self>, booking: &Booking, broken_off: bool) {
        if !booking.is_plain() {
            self.live.unbook(booking);
        }
        if let Some(held) = &booking.resources {
            self.live.ledger().give_back(held, booking.promised, broken_off, Instant::now());
        }
        let was_last = self.hot.spot.give_back();
        self.hot.bell.slot_freed(self);
        if was_last && self.hot.bell.is_idle_awaited() {
            self.live.became_idle();
        }
    }

    /// Whether nothing is the matter with it: otherwise its conduct says more.
    #[inline]
    pub(crate) fn is_ordinary(&self) -> bool {
        self.hot.spot.is_ordinary()
    }

    /// What a choice by load looks at; `None` if it is full or takes nothing new.
    #[inline]
    pub(crate) fn look(&self) -> Option<Look> {
        self.hot.spot.look()
    }

    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.hot.bell
    }

    /// What its conduct has earned it under a policy: see [`Dispatcher::standing`](crate::Dispatcher::standing).
    pub fn standing(&self, now: Instant, policy: &HealthPolicy) -> Standing {
        self.live.conduct().standing(now, policy)
    }

    /// Waits until this registration has left the registry, by removal or by replacement.
    ///
    /// Cancel safe: dropping the future loses nothing.
    pub async fn left(&self) {
        self.live.left().await;
    }

    /// Waits until nothing is reserved on the runner. Cancel safe.
    pub async fn idle(&self) {
        let _counted = self.hot.bell.await_idle();
        self.live.idle().await;
    }

    /// A small number that no other registration of the registry has while this one is in use anywhere. Given
    /// out again afterwards; the generation tells the two apart.
    pub(crate) fn number(&self) -> u32 {
        self.live.seat().number()
    }

    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.live
    }
}

/// FNV-1a, 64 bits, with the offset and prime of its authors (Fowler, Noll, Vo). Whoever uses it mixes it.
fn stable_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("key", &self.key)
            .field("spec", &self.spec)
            .field("status", &self.status)
            .field("load", &self.load())
            .finish_non_exhaustive()
    }
}
