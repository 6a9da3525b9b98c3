//! What the engine says of itself, asked by one task on behalf of every connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gateway_core::{Command, Health, LinkError, ModelId, ReportedLoad, RunnerLink, RunnerStatus};
use tokio::sync::{Notify, watch};

use super::gate::Count;

/// An engine that has not answered within this time counts as one that failed to answer: twice what a
/// busy engine was seen to need, and short enough to call it unhealthy within three default intervals.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// So many failures in a row make a runner unhealthy; one success heals it.
const FAILURES_TO_UNHEALTHY: u32 = 3;

/// The engine's last word.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    /// Which question it answers at the latest; 0 before the first answer.
    answers: u64,
    status: RunnerStatus,
}

/// The questions asked so far.
#[derive(Debug, Default)]
struct Questions {
    last: AtomicU64,
    asked: Notify,
}

/// Reads the reports. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Reports {
    latest: watch::Receiver<Report>,
    questions: Arc<Questions>,
}

/// Asks the engine. There is one for each agent, so that several gateways cost the engine no more than one.
pub(super) struct Poller {
    engine: Arc<dyn RunnerLink>,
    interval: Duration,
    publish: watch::Sender<Report>,
    questions: Arc<Questions>,
}

impl Poller {
    pub(super) fn new(engine: Arc<dyn RunnerLink>, interval: Duration) -> (Self, Reports) {
        let (publish, latest) = watch::channel(Report::default());
        // The first question asks itself, so that a connection can wait for its answer.
        let questions = Arc::new(Questions { last: AtomicU64::new(1), asked: Notify::new() });
        let reports = Reports { latest, questions: questions.clone() };
        (Self { engine, interval, publish, questions }, reports)
    }

    /// Asks at once, then at every interval and at every question. Never returns; its owner drops it.
    pub(super) async fn run(self) {
        let mut failures = 0u32;
        loop {
            let question = self.questions.last.load(Ordering::Acquire);
            let told = self.ask().await;
            self.publish.send_modify(|report| {
                report.answers = question;
                match told {
                    Ok(status) => {
                        if failures >= FAILURES_TO_UNHEALTHY {
                            tracing::info!("the engine answers again");
                        }
                        failures = 0;
                        report.status = status;
                    }
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        note_failure(failures, &error);
                        if failures >= FAILURES_TO_UNHEALTHY {
                            report.status.health = Health::Unhealthy;
                            // How busy an engine is that does not answer is not known.
                            report.status.load = None;
                        }
                    }
                }
            });
            let wait = tokio::time::sleep(self.interval);
            tokio::pin!(wait);
            while self.questions.last.load(Ordering::Acquire) == question {
                tokio::select! {
                    () = &mut wait => break,
                    () = self.questions.asked.notified() => {}
                }
            }
        }
    }

    async fn ask(&self) -> Result<RunnerStatus, LinkError> {
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, self.engine.command(Command::Status)).await;
        let reply = asked.map_err(|_| LinkError::timed_out("the engine did not tell its status"))??;
        reply.status.ok_or_else(|| {
            let error = LinkError::lost("the engine's answer held no status");
            match reply.result {
                Ok(()) => error,
                Err(words) => error.because(words),
            }
        })
    }
}

fn note_failure(failures: u32, error: &LinkError) {
    if failures == FAILURES_TO_UNHEALTHY {
        tracing::warn!(%error, "the engine does not tell its status; reported as unhealthy until it does");
    } else if failures == 1 && error.is_unsupported() {
        tracing::warn!(
            "this engine's link cannot tell a status; give the agent one that can, such as EngineLink"
        );
    } else {
        tracing::debug!(%error, failures, "the engine did not tell its status");
    }
}

impl Reports {
    /// Waits until the engine has been asked once, whatever came of it. Cancel safe.
    pub(super) async fn first(&mut self) {
        self.answered(1).await;
    }

    /// Asks the engine now and waits for the answer to this question, not to an earlier one. Cancel safe.
    pub(super) async fn refresh(&mut self) {
        let question = self.questions.last.fetch_add(1, Ordering::AcqRel) + 1;
        self.questions.asked.notify_one();
        self.answered(question).await;
    }

    async fn answered(&mut self, question: u64) {
        // Fails when the poller is gone, and then the last word stays the last word.
        let _ = self.latest.wait_for(|report| report.answers >= question).await;
    }

    /// Waits until the engine has been asked again since the last look. Cancel safe.
    pub(super) async fn next(&mut self) {
        if self.latest.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// What to tell a gateway now.
    ///
    /// The load is the engine's word or what is counted here, whichever is more: the engine knows requests
    /// that came another way, the count knows those that the engine has not seen yet. If requests do not
    /// come through a tunnel (`counted` is false) and the engine does not tell, the load is unknown, which
    /// is not zero.
    pub(super) fn status(&mut self, count: &Count, counted: bool) -> RunnerStatus {
        let mut status = self.latest.borrow_and_update().status.clone();
        if count.is_closed() {
            status.health = Health::ShuttingDown;
        }
        let here = if counted || count.in_flight() > 0 { Some(count.in_flight()) } else { None };
        status.load = match (status.load, here) {
            (Some(load), here) => Some(ReportedLoad { active: load.active.max(here.unwrap_or(0)), ..load }),
            (None, Some(active)) => Some(ReportedLoad { active, queued: 0 }),
            (None, None) => None,
        };
        status
    }

    /// The model that a gateway means by `name`: the canonical one, if this is the engine's own name for it.
    pub(super) fn canonical(&self, name: &str) -> Result<ModelId, String> {
        let name = ModelId::new(name).map_err(|invalid| invalid.to_string())?;
        let report = self.latest.borrow();
        let models = &report.status.models;
        if models.iter().any(|model| model.id == name) {
            return Ok(name);
        }
        let local = models.iter().find(|model| *model.local_name() == name);
        Ok(local.map_or(name, |model| model.id.clone()))
    }

    /// Whether the engine's last word was that it works on something.
    pub(super) fn engine_is_busy(&self) -> bool {
        self.latest.borrow().status.load.is_some_and(|load| load.active > 0 || load.queued > 0)
    }
}
