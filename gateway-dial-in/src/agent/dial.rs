//! Keeps one gateway connected: dials, and dials again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::Shared;
use super::backoff::Waits;
use super::phase::{Phase, PhaseWatch};
use super::report::Reports;
use super::talk::{self, End};
use super::{Failed, Gateway};

/// Runs until the agent drains; then until its connection, if it has one, is closed.
pub(super) async fn keep(
    gateway: Arc<dyn Gateway>,
    shared: Arc<Shared>,
    reports: Reports,
    mut phase: PhaseWatch,
) {
    let mut waits = Waits::new(shared.settings.backoff);
    loop {
        let wait = match once(&*gateway, &shared, reports.clone(), phase.clone()).await {
            Ok(()) => return,
            Err(lost) => lost.note(&*gateway, &shared, &mut waits),
        };
        tokio::select! {
            biased;
            _ = phase.reached(Phase::Draining) => return,
            () = sleep(wait) => {}
        }
    }
}

/// A connection that came to nothing, or to an end that was not asked for.
struct Lost {
    failed: Failed,
    /// How long it was registered.
    lived: Option<Duration>,
}

impl Lost {
    /// Says what happened, and how long to wait.
    fn note(&self, gateway: &dyn Gateway, shared: &Shared, waits: &mut Waits) -> Duration {
        let Self { failed, lived } = self;
        // A gateway that lets runners in and throws them out at once must not be dialled at full pace.
        if lived.is_some_and(|lived| lived >= shared.settings.backoff.max()) {
            waits.reset();
        }
        let wait = if failed.is_refusal() { waits.next_after_refusal() } else { waits.next() };
        tracing::warn!(
            runner = %shared.spec.id,
            gateway = %gateway,
            error = %failed,
            wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            "not connected to the gateway; dialling again after the wait"
        );
        wait
    }
}

/// One connection from dialling to its end. `Ok` if it ended because the agent does.
async fn once(
    gateway: &dyn Gateway,
    shared: &Arc<Shared>,
    mut reports: Reports,
    mut phase: PhaseWatch,
) -> Result<(), Lost> {
    let register = async {
        // Asked before this runner is known to anyone, so that it is not first told without models.
        reports.first().await;
        let settings = &shared.settings;
        let dialled = timeout(settings.connect_timeout, gateway.dial(&*settings.connector))
            .await
            .map_err(|_| Failed::TimedOut("connecting took too long; is the address right?"))??;
        talk::register(dialled, shared, &mut reports).await
    };
    let line = tokio::select! {
        biased;
        _ = phase.reached(Phase::Draining) => return Ok(()),
        line = register => line.map_err(|failed| Lost { failed, lived: None })?,
    };
    tracing::info!(
        runner = %shared.spec.id, gateway = %gateway, tunnel = line.carries_requests(), "registered"
    );
    let since = Instant::now();
    match line.serve(shared, reports, phase).await {
        End::Stopped => Ok(()),
        End::Lost(failed) => Err(Lost { failed, lived: Some(since.elapsed()) }),
    }
}
