//! The runner's side: dials gateways, registers an engine with them, and serves it.
//!
//! An [`Agent`] dials in the ways that its builder was given ([`AgentBuilder::transport`]); the crates of the
//! transports have builders that know their own from the start.

mod backoff;
mod builder;
mod commands;
mod connector;
mod dial;
mod failed;
mod gate;
mod phase;
mod report;
mod talk;
mod transport;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::{CancellationToken, RunnerLink, RunnerSpec};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub use backoff::{Backoff, InvalidBackoff};
pub use builder::{AgentBuilder, InvalidAgent};
pub use connector::{Connector, GatewayStream, TcpConnector};
pub use failed::{Failed, Refusal};
pub use transport::{BadAddress, Dialled, Gateway, Heard, Introduction, Registered, Transport, Uplink};

use builder::Settings;
use gate::Gate;
use phase::{Phase, PhaseControl};
use report::{Poller, Reports};

/// How long the connections may take to say goodbye when the time to drain is up. A gateway that does not
/// answer the close within this time is left.
const GOODBYE: Duration = Duration::from_secs(5);

/// How often an engine is asked whether it is done when gateways dialled back to it: only it knows.
const DIAL_BACK_DRAIN_INTERVAL: Duration = Duration::from_millis(500);

/// Stands before an engine and makes it a runner of one or several gateways.
///
/// It keeps one connection to each gateway, reports the engine's status over it, carries out load and
/// unload, and serves what comes through it. A connection that ends is dialled again, with [`Backoff`]; an engine that
/// does not answer is reported as unhealthy and its connections stay.
///
/// The slots of the [`RunnerSpec`] hold for all gateways together: a request above them is refused with 503
/// and `Retry-After` before the engine sees it.
pub struct Agent {
    gateways: Vec<Arc<dyn Gateway>>,
    shared: Arc<Shared>,
    engine: Arc<dyn RunnerLink>,
}

/// What all connections of one agent share.
struct Shared {
    spec: RunnerSpec,
    settings: Settings,
    gate: Arc<Gate>,
}

impl Agent {
    /// Starts with the defaults. A transport, a gateway, a spec and an engine have to be given.
    pub fn builder() -> AgentBuilder {
        AgentBuilder::new()
    }

    fn new(
        gateways: Vec<Arc<dyn Gateway>>,
        spec: RunnerSpec,
        engine: Arc<dyn RunnerLink>,
        settings: Settings,
    ) -> Self {
        let gate = Arc::new(Gate::new(engine.clone(), spec.slots));
        Self { gateways, shared: Arc::new(Shared { spec, settings, gate }), engine }
    }

    /// Serves until `stop` is cancelled, then drains: every gateway hears that the runner is shutting down,
    /// new requests are refused, those in flight go on until the gateways have all of their answers or the
    /// drain timeout is over; then the connections are closed. Takes at most the drain timeout and 5 s for
    /// the closing.
    ///
    /// Every task that it starts ends with it. Dropping the future cuts every connection at once.
    ///
    /// # Panics
    ///
    /// If the engine's link panics while it tells its status.
    pub async fn run(self, stop: CancellationToken) {
        let Self { gateways, shared, engine } = self;
        let phases = PhaseControl::new();
        // Dropping a set ends its tasks; so does dropping this future.
        let mut polling = JoinSet::new();
        let (poller, reports) = Poller::new(engine, shared.settings.status_interval);
        polling.spawn(poller.run());
        let mut connections = JoinSet::new();
        for gateway in gateways {
            connections.spawn(dial::keep(gateway, shared.clone(), reports.clone(), phases.watch()));
        }

        tokio::select! {
            () = stop.cancelled() => {}
            // Neither ends before it is told to, except by a panic.
            Some(ended) = polling.join_next() => pass_on_panic(ended),
            Some(ended) = connections.join_next() => pass_on_panic(ended),
        }

        let id = &shared.spec.id;
        let count = shared.gate.count();
        tracing::info!(runner = %id, in_flight = count.in_flight(), "draining");
        // First the gate, then the word: what the connections report is read from the gate.
        count.close();
        phases.enter(Phase::Draining);
        let deadline = Instant::now() + shared.settings.drain_timeout;
        let served = async {
            drained(&shared, reports, &phases).await;
            phases.enter(Phase::Closing);
            while connections.join_next().await.is_some() {}
        };
        if timeout_at(deadline, served).await.is_ok() {
            return;
        }
        tracing::warn!(runner = %id, in_flight = count.in_flight(), "the time to drain is up");
        phases.enter(Phase::Cutting);
        let goodbyes = async { while connections.join_next().await.is_some() {} };
        if timeout(GOODBYE, goodbyes).await.is_err() {
            tracing::debug!(runner = %id, "a gateway did not answer the close");
        }
    }
}

/// Waits until nothing of the gateways is on the engine.
async fn drained(shared: &Shared, mut reports: Reports, phases: &PhaseControl) {
    shared.gate.count().idle().await;
    while phases.anyone_dials_back() {
        reports.refresh().await;
        if !reports.engine_is_busy() {
            return;
        }
        sleep(DIAL_BACK_DRAIN_INTERVAL).await;
    }
}

fn pass_on_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("gateways", &self.gateways.iter().map(ToString::to_string).collect::<Vec<_>>())
            .field("spec", &self.shared.spec)
            .finish_non_exhaustive()
    }
}
