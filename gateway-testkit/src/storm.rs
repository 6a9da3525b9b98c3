//! Many requests over runners that come, go and fail, from clients that go away: afterwards nothing may be
//! left, and nobody may have been failed whom any runner could have served.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use gateway_core::{
    Backoff, Deadlines, Dispatcher, InMemoryRegistry, LeaveReason, ModelId, Registry, RetryPolicy, RunnerId,
    RunnerSpec, RunnerStatus,
};
use http_body_util::BodyExt;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::conformance::Subject;
use crate::engine::MockEngine;
use crate::recorder::{Recorder, assert_all_zero};
use crate::script::{Fault, Script};

/// How heavy the weather is. One runner is steady; the others flap and fail.
#[derive(Debug, Clone)]
pub struct Storm {
    /// Requests in all.
    pub requests: usize,
    /// Requests at once.
    pub at_once: usize,
    /// Runners that come and go, besides the steady one.
    pub flapping: usize,
    /// What chance starts from.
    pub seed: u64,
    /// The time to first byte, and between chunks: how long a silent runner is waited for.
    pub patience: Duration,
}

impl Default for Storm {
    fn default() -> Self {
        Self { requests: 20_000, at_once: 200, flapping: 4, seed: 1, patience: Duration::from_millis(300) }
    }
}

/// What became of the requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Answered whole.
    pub answered: usize,
    /// Given up by their clients.
    pub cancelled: usize,
    /// Broken off by the runner after the answer had begun.
    pub broken_off: usize,
    /// Tries on runners, in all.
    pub tries: u64,
    /// How often a runner left.
    pub flaps: usize,
}

fn faulty(rng: &mut Rng) -> Script {
    let fine = || Script::chunks(["one ", "two ", "three"]).interval(Duration::from_millis(1));
    match rng.u8(..14) {
        0 => fine().fault(Fault::Unreachable),
        1 => fine().fault(Fault::NoAnswer),
        2 => fine().fault(Fault::CutBeforeHead),
        3 => fine().fault(Fault::CutBeforeFirstByte),
        4 => fine().fault(Fault::CutAfter(1)),
        5 => fine().fault(Fault::StallAfter(1)),
        6 => Script::status(500, "no"),
        7 => Script::status(503, "busy"),
        8 => fine().delay(Duration::from_millis(u64::from(rng.u8(..20)))),
        _ => fine(),
    }
}

/// What a client does.
#[derive(Clone, Copy)]
enum Plan {
    ReadAll,
    ReadSlowly,
    LeaveAfter(Duration),
    LeaveAfterFirstChunk,
}

impl Plan {
    fn draw(rng: &mut Rng) -> Self {
        match rng.u8(..10) {
            0 | 1 => Self::LeaveAfter(Duration::from_micros(rng.u64(..30_000))),
            2 => Self::LeaveAfterFirstChunk,
            3 => Self::ReadSlowly,
            _ => Self::ReadAll,
        }
    }
}

enum End {
    Answered,
    Cancelled,
    BrokenOff,
}

async fn client(dispatcher: Dispatcher, model: ModelId, plan: Plan) -> End {
    let exchange = async {
        let answer = dispatcher.dispatch(crate::request(&model, "{}")).await;
        // The steady runner could serve, so there is no excuse.
        let answer = answer.unwrap_or_else(|error| panic!("failed before it began: {error}"));
        assert_eq!(answer.response.status(), 200, "a runner's failure reached the client");
        let mut body = answer.response.into_body();
        let mut chunks = 0;
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return End::BrokenOff;
            }
            chunks += 1;
            match plan {
                Plan::LeaveAfterFirstChunk => return End::Cancelled,
                Plan::ReadSlowly => sleep(Duration::from_millis(5)).await,
                _ => {}
            }
        }
        assert!(chunks > 0);
        End::Answered
    };
    match plan {
        Plan::LeaveAfter(time) => timeout(time, exchange).await.unwrap_or(End::Cancelled),
        _ => exchange.await,
    }
}

/// Runs a storm over links of this subject and checks that every counter is back to zero, that no request
/// failed before its answer began, and that no task is left.
///
/// # Panics
/// One of those did not hold.
pub async fn run(subject: &dyn Subject, storm: Storm) -> Report {
    let tasks_before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let report = blow(subject, &storm).await;
    // Tasks that were told to end get the time to do so.
    let mut left = usize::MAX;
    for _ in 0..200 {
        left = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        if left <= tasks_before {
            break;
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert!(left <= tasks_before, "{} tasks are left behind", left - tasks_before);
    report
}

async fn blow(subject: &dyn Subject, storm: &Storm) -> Report {
    let registry = Arc::new(InMemoryRegistry::new());
    let recorder = Recorder::new();
    let limit = Some(storm.patience);
    let dispatcher = Dispatcher::builder(registry.clone())
        .deadlines(Deadlines { first_byte: limit, idle: limit, total: None })
        .retry(RetryPolicy {
            max_failures: u32::try_from(storm.flapping).unwrap_or(u32::MAX) + 1,
            // Most of the fleet is broken on purpose: no budget would last.
            budget: None,
            backoff: Backoff::none(),
        })
        .observer(recorder.clone())
        .build();
    let model = ModelId::new("m").expect("a valid name");
    let spec = |name: String| RunnerSpec::new(RunnerId::new(name).expect("a valid id"));
    let status = || RunnerStatus::serving([model.clone()]);

    let steady =
        MockEngine::new(|_| Script::chunks(["one ", "two ", "three"]).interval(Duration::from_millis(1)));
    let steady_link = subject.connect(steady.clone()).await;
    registry.join(spec("steady".into()), status(), steady_link.link.clone());

    let over = CancellationToken::new();
    let mut engines = vec![steady];
    let mut flaps = Vec::new();
    for number in 0..storm.flapping {
        let rng = Mutex::new(Rng::with_seed(storm.seed.wrapping_add(1 + number as u64)));
        let engine =
            MockEngine::new(move |_| faulty(&mut rng.lock().unwrap_or_else(PoisonError::into_inner)));
        engines.push(engine.clone());
        let spec = spec(format!("flapping-{number}")).slots(64);
        let status = status();
        let mut rng = Rng::with_seed(storm.seed.wrapping_add(100 + number as u64));
        let (registry, over) = (registry.clone(), over.clone());
        flaps.push(async move {
            let mut flaps = 0;
            while !over.is_cancelled() {
                let connected = subject.connect(engine.clone()).await;
                let key = registry.join(spec.clone(), status.clone(), connected.link.clone());
                let up = Duration::from_millis(rng.u64(5..80));
                let _ = timeout(up, over.cancelled()).await;
                registry.leave(&key, LeaveReason::Disconnected);
                // As abrupt as a killed process: what is under way breaks off.
                connected.link.close();
                flaps += 1;
                sleep(Duration::from_millis(rng.u64(1..20))).await;
            }
            flaps
        });
    }

    let clients = async {
        let mut rng = Rng::with_seed(storm.seed);
        let mut report = Report::default();
        let mut running = JoinSet::new();
        let mut started = 0;
        loop {
            while started < storm.requests && running.len() < storm.at_once {
                running.spawn(client(dispatcher.clone(), model.clone(), Plan::draw(&mut rng)));
                started += 1;
            }
            let Some(end) = running.join_next().await else { break };
            match end.expect("a client found fault") {
                End::Answered => report.answered += 1,
                End::Cancelled => report.cancelled += 1,
                End::BrokenOff => report.broken_off += 1,
            }
        }
        over.cancel();
        report
    };
    let (mut report, flaps) = tokio::join!(clients, futures_util::future::join_all(flaps));
    assert_all_zero(&dispatcher, &engines).await;
    report.flaps = flaps.iter().sum();
    report.tries = recorder.tries();
    assert_eq!(report.answered + report.cancelled + report.broken_off, storm.requests);
    report
}
