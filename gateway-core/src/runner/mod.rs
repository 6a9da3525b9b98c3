//! The runner model: what a runner is, what it says of itself, and what is counted of it here.

mod live;
mod reservation;
mod resources;
mod spec;
mod status;

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

pub use live::Load;
pub(crate) use live::{Live, wait_for};
pub use reservation::Reservation;
pub use resources::{ResourceReport, Resources};
pub use spec::{Labels, Machine, MachineKind, RunnerSpec};
pub use status::{
    Capability, CapabilityReport, Health, Modalities, Modality, Model, ModelState, ReportedLoad, RunnerStatus,
};

use crate::link::RunnerLink;
use crate::names::{ModelId, RunnerId, RunnerKey};

/// One runner of a [`Fleet`](crate::Fleet): its description at that moment, its [`RunnerLink`], and the
/// counters that every snapshot of the same registration shares.
///
/// Description and status never change inside a `Runner`: a change makes a new one in a new snapshot.
pub struct Runner {
    key: RunnerKey,
    id_header: http::HeaderValue,
    spec: Arc<RunnerSpec>,
    status: RunnerStatus,
    link: Arc<dyn RunnerLink>,
    live: Arc<Live>,
}

impl Runner {
    pub(crate) fn new(
        key: RunnerKey,
        spec: RunnerSpec,
        status: RunnerStatus,
        link: Arc<dyn RunnerLink>,
    ) -> Self {
        let live = Arc::new(Live::new(spec.slots));
        live.report(status.load);
        let id_header = http::HeaderValue::from_bytes(key.id.as_str().as_bytes())
            .unwrap_or(http::HeaderValue::from_static("unprintable"));
        Self { key, id_header, spec: Arc::new(spec), status, link, live }
    }

    /// The same registration with another status: shares link and counters.
    pub(crate) fn with_status(&self, status: RunnerStatus) -> Self {
        Self {
            key: self.key.clone(),
            id_header: self.id_header.clone(),
            spec: self.spec.clone(),
            status,
            link: self.link.clone(),
            live: self.live.clone(),
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
        let by_id = self.status.models.iter().find(|model| model.id.as_str() == name);
        by_id.or_else(|| self.status.models.iter().find(|model| model.local_name().as_str() == name))
    }

    /// The name to put on the wire for `model`, as a JSON string, or `None` if the name that the client
    /// used is the runner's own.
    pub(crate) fn rename(&self, name: &ModelId) -> Option<&bytes::Bytes> {
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
        self.status.health.is_operational() && !self.live.is_draining()
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

    /// Takes a slot, if one is free and the runner is available. Choose and count are this one step.
    ///
    /// Never waits. The slot is given back when the [`Reservation`] is dropped, and in no other way.
    pub fn try_reserve(self: &Arc<Self>) -> Option<Reservation> {
        if !self.is_available() || !self.live.take() {
            return None;
        }
        Some(Reservation::new(self.clone()))
    }

    /// Waits until this registration has left the registry, by removal or by replacement.
    ///
    /// Cancel safe: dropping the future loses nothing.
    pub async fn left(&self) {
        self.live.left().await;
    }

    /// Waits until nothing is reserved on the runner. Cancel safe.
    pub async fn idle(&self) {
        self.live.idle().await;
    }

    pub(crate) fn live(&self) -> &Live {
        &self.live
    }
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
