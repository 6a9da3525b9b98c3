//! One run: a scenario under one strategy, on the gateway's own dispatcher, in virtual time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway_core::{
    Balancer, Claim, Deadlines, Dispatch, DispatchErrorKind, Dispatcher, InMemoryRegistry, LeaveReason,
    LinkRequest, ModelId, Permit, PromptBlocks, QueuePolicy, Registry, RequestBody, RequestId, Requirements,
    RunnerChange, RunnerId, RunnerKey, RunnerSpec, RunnerStatus, Tenant, Terms, Workload,
};
use http_body_util::BodyExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::cache::BlockCache;
use super::engine::{Engine, Job, Nanos, Work};
use super::log::{Log, Record};
use super::modelled::{Clock, ModelledLink, ModelledRunner};
use super::reference::{View, runner_id};
use super::scenario::{Fault, FaultKind, NOTICED_AFTER, REPORT_EVERY, Scenario};
use super::stopwatch::{PickTimes, Timed};
use super::strategies::{IDEAL, balancer};
use super::trace::TraceRequest;

/// What a run came to, request by request.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) records: Vec<Record>,
    /// What each runner had computed by the last arrival.
    pub(crate) done: Vec<Work>,
    pub(crate) last_arrival: Nanos,
    pub(crate) end: Nanos,
    /// Wall clock: the one thing that differs from run to run.
    pub(crate) picks: PickTimes,
}

/// The most tokens of an answer that requests ask for: how long answers really become is for nobody to know.
const MAX_TOKENS: u32 = 2_048;

/// Runs the scenario under the strategy of that name. `None` if there is none of that name.
pub(crate) fn run(scenario: &Scenario, strategy: &str) -> Option<Run> {
    // Strategies and their tie-breaks draw from this thread's generator.
    fastrand::seed(scenario.seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing of the system");
    runtime.block_on(simulate(scenario, strategy))
}

/// What everybody in a run has in common.
struct Stage {
    registry: Arc<InMemoryRegistry>,
    dispatcher: Dispatcher,
    runners: View,
    log: Arc<Log>,
    clock: Clock,
    model: ModelId,
}

async fn simulate(scenario: &Scenario, strategy: &str) -> Option<Run> {
    let clock = Clock::start();
    let log = Arc::new(Log::new(scenario.trace.requests.len()));
    let caches = caches(scenario, strategy);
    let runner = |number: usize| {
        let engine = Engine::new(scenario.machine_of(number), caches[number].clone());
        ModelledRunner::new(number, engine, clock, log.clone())
    };
    let runners: View = (0..scenario.runners).map(runner).collect();
    let timed = Arc::new(Timed::new(balancer(strategy, &runners, &scenario.machine)?));
    let registry = Arc::new(InMemoryRegistry::new());
    let dispatcher = dispatcher(registry.clone(), timed.clone());
    let model = ModelId::new("modelled").expect("a valid name");
    let stage = Arc::new(Stage { registry, dispatcher, runners, log, clock, model });

    // Dropped at the end, and everything that runs beside the requests with it.
    let mut background = JoinSet::new();
    for (number, runner) in stage.runners.iter().enumerate() {
        background.spawn(runner.clone().drive());
        background.spawn(report(stage.clone(), number, scenario.report_delay, scenario.machine.slots));
    }
    for fault in &scenario.faults {
        let machine = scenario.machine_of(fault.runner);
        background.spawn(befall(stage.clone(), *fault, move || {
            Engine::new(machine, Arc::new(Mutex::new(BlockCache::new(machine.kv_blocks as usize))))
        }));
    }
    // Everybody has joined before the first request comes.
    tokio::task::yield_now().await;

    let mut clients = JoinSet::new();
    for (id, request) in scenario.trace.requests.iter().enumerate() {
        let arrival = Duration::from_secs_f64(request.arrival).as_nanos() as Nanos;
        sleep_until(clock.at(arrival)).await;
        stage.log.arrived(id, clock.now());
        clients.spawn(client(stage.clone(), call(&stage, id, request), id));
    }
    let last_arrival = clock.now();
    let done = stage.runners.iter().map(|runner| runner.look(Engine::done)).collect();
    while clients.join_next().await.is_some() {}
    Some(Run { records: stage.log.take(), done, last_arrival, end: clock.now(), picks: timed.times() })
}

/// One cache each; for the bound one of the same total size for all.
fn caches(scenario: &Scenario, strategy: &str) -> Vec<Arc<Mutex<BlockCache>>> {
    let blocks = scenario.machine.kv_blocks as usize;
    let cache = |blocks| Arc::new(Mutex::new(BlockCache::new(blocks)));
    if strategy == IDEAL {
        return vec![cache(blocks * scenario.runners); scenario.runners];
    }
    (0..scenario.runners).map(|_| cache(blocks)).collect()
}

fn dispatcher(registry: Arc<InMemoryRegistry>, balancer: Arc<dyn Balancer>) -> Dispatcher {
    // A request that waits for long is to be seen in the figures, not cut off.
    let deadlines = Deadlines { first_byte: None, idle: None, total: None };
    // Nobody is sent away, so that all strategies serve the same requests.
    let queue = QueuePolicy {
        max_waiting: usize::MAX,
        max_per_tenant: usize::MAX,
        patience: Duration::MAX,
        ..QueuePolicy::default()
    };
    Dispatcher::builder(registry).balancer(balancer).deadlines(deadlines).queue(queue).build()
}

fn call(stage: &Stage, id: usize, request: &TraceRequest) -> Dispatch {
    let job = Job {
        id,
        prompt_tokens: request.prompt_tokens,
        answer_tokens: request.answer_tokens,
        blocks: request.blocks.clone(),
    };
    let mut requirements = Requirements::model(stage.model.clone());
    requirements.workload = Workload {
        prompt_tokens: Some(request.prompt_tokens),
        max_tokens: Some(MAX_TOKENS),
        session: request.session,
        prefix: PromptBlocks::new(request.blocks.clone(), super::trace::BLOCK_TOKENS),
        deadline: None,
    };
    let tenant = request.tenant.as_ref().and_then(|tenant| Tenant::new(tenant).ok());
    let claim = Claim { tenant, ..Claim::default() };
    let mut to_runner = LinkRequest::new(RequestBody::empty());
    to_runner.extensions_mut().insert(job);
    // Not a random id: that would draw from the strategies' generator.
    let name = http::HeaderValue::from(id);
    let id = RequestId::from_header(&name).unwrap_or_else(RequestId::random);
    Dispatch { id, request: to_runner, requirements, claim, permit: Permit::free(), terms: Terms::default() }
}

async fn client(stage: Arc<Stage>, call: Dispatch, id: usize) {
    let answer = match stage.dispatcher.dispatch(call).await {
        Ok(answer) => answer,
        Err(error) => return stage.log.failed(id, kind(error.kind())),
    };
    stage.log.answered(id, answer.tries);
    if !answer.response.status().is_success() {
        return stage.log.failed(id, "refused");
    }
    let mut body = answer.response.into_body();
    while let Some(chunk) = body.frame().await {
        if chunk.is_err() {
            return stage.log.failed(id, "broken off");
        }
    }
}

fn kind(kind: DispatchErrorKind) -> &'static str {
    match kind {
        DispatchErrorKind::Overloaded => "overloaded",
        DispatchErrorKind::NoneEligible | DispatchErrorKind::UnknownModel => "no runner",
        DispatchErrorKind::RunnerFailed(_) => "runner failed",
        DispatchErrorKind::Unreachable => "unreachable",
        DispatchErrorKind::Deadline => "deadline",
        _ => "other",
    }
}

fn join(stage: &Stage, number: usize, slots: u32) -> RunnerKey {
    let id = RunnerId::new(runner_id(number)).expect("a valid id");
    let status = RunnerStatus::serving([stage.model.clone()]);
    let link = Arc::new(ModelledLink(stage.runners[number].clone()));
    stage.registry.join(RunnerSpec::new(id).slots(slots), status, link)
}

/// Registers a runner and says every second how busy it is, or was `delay` ago; anew when it has been away.
async fn report(stage: Arc<Stage>, number: usize, delay: Duration, slots: u32) {
    let runner = &stage.runners[number];
    let mut key = join(&stage, number, slots);
    // Runners report one after the other, not all at once.
    let mut next = Instant::now() + REPORT_EVERY.mul_f64(number as f64 / stage.runners.len() as f64);
    let mut seen = VecDeque::new();
    loop {
        sleep_until(next).await;
        next += REPORT_EVERY;
        if !runner.is_alive() {
            seen.clear();
            continue;
        }
        let mut status = RunnerStatus::serving([stage.model.clone()]);
        seen.push_back((Instant::now(), runner.load()));
        let old_enough = |at: &Instant| at.elapsed() >= delay;
        while seen.get(1).is_some_and(|(at, _)| old_enough(at)) {
            seen.pop_front();
        }
        status.load = seen.front().filter(|(at, _)| old_enough(at)).map(|(_, load)| *load);
        if !stage.registry.update(&key, RunnerChange::Status(status)) {
            key = join(&stage, number, slots);
        }
    }
}

async fn befall(stage: Arc<Stage>, fault: Fault, anew: impl FnOnce() -> Engine) {
    let at = u64::try_from(fault.at.as_nanos()).unwrap_or(Nanos::MAX);
    sleep_until(stage.clock.at(at)).await;
    let runner = &stage.runners[fault.runner];
    match fault.kind {
        FaultKind::ComesBack => runner.revive(anew()),
        FaultKind::Dies => {
            runner.kill();
            tokio::time::sleep(NOTICED_AFTER).await;
            let fleet = stage.registry.fleet();
            if let Some(dead) = fleet.runner(&runner_id(fault.runner)).filter(|_| !runner.is_alive()) {
                stage.registry.leave(dead.key(), LeaveReason::Disconnected);
            }
        }
    }
}
