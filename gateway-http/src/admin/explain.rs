use bytes::Bytes;
use gateway_core::{
    BoxError, BreakerState, Explained, Feature, Labels, LaneReport, QueueReport, Resources, Score, Standing,
    Tenant, Workload,
};
use http::request::Parts;
use http::{HeaderName, Response, StatusCode};
use http_body::Body;
use serde::{Serialize, Serializer};
use tokio::time::Instant;

use crate::auth::Identity;
use crate::error::ApiError;
use crate::gateway::Shared;
use crate::generic::GenericAsked;
use crate::inference::{Asked, gather};
use crate::refusals;
use crate::respond::json;
use crate::route::Inference;

/// In whose place the admin asks: sessions, and prompts if they are set apart, are those of a tenant.
const TENANT: HeaderName = HeaderName::from_static("x-tenant");

#[derive(Serialize)]
struct Explanation<'a> {
    model: Option<&'a str>,
    strategy: &'static str,
    targets: Vec<&'a str>,
    /// What must be free.
    needs: Option<NeedsView>,
    labels: &'a Labels,
    /// The fields that ask something of the API that not every runner can do.
    asks_for: Vec<&'static str>,
    workload: Work,
    priority: &'static str,
    tenant: Option<&'a str>,
    queue: QueueView<'a>,
    runners: Vec<RunnerView<'a>>,
}

#[derive(Serialize)]
struct NeedsView {
    cpus: f64,
    gpus: f64,
    memory_gb: f64,
}

impl From<Resources> for NeedsView {
    fn from(Resources { cpus, gpus, memory_gb }: Resources) -> Self {
        Self { cpus, gpus, memory_gb }
    }
}

/// Who waits for a slot at the moment.
#[derive(Serialize)]
struct QueueView<'a> {
    waiting: usize,
    max_waiting: usize,
    /// By model, the longest first.
    lanes: Vec<LaneView<'a>>,
    more_lanes: usize,
}

#[derive(Serialize)]
struct LaneView<'a> {
    model: Option<&'a str>,
    waiting: usize,
    oldest_ms: u128,
    slots_per_s: Option<f64>,
}

/// What the strategy is told of the request.
#[derive(Serialize)]
struct Work {
    prompt_tokens: Option<u32>,
    max_tokens: Option<u32>,
    /// Hexadecimal: JSON's numbers do not hold it in every language.
    session: Option<String>,
    prompt_blocks: usize,
    deadline_ms: Option<u128>,
}

#[derive(Serialize)]
struct RunnerView<'a> {
    id: &'a str,
    model: Option<&'a str>,
    /// How many of the targets are looked at before this one.
    rank: usize,
    is_fallback: bool,
    /// `eligible`, or the code of what stands in the way.
    verdict: &'static str,
    /// The same in words.
    why: Option<String>,
    scores: Scores<'a>,
    load: LoadView,
    health: &'static str,
    draining: bool,
    standing: StandingView,
    model_state: Option<&'static str>,
    model_in_flight: Option<u32>,
}

#[derive(Serialize)]
struct LoadView {
    in_flight: u32,
    slots: Option<u32>,
    foreign_requests: Option<u32>,
    report_age_ms: Option<u128>,
    tokens: u64,
    prefill_tokens: u64,
}

/// What the runner's conduct has earned it.
#[derive(Serialize)]
struct StandingView {
    /// One word for what matters most.
    standing: &'static str,
    breaker: &'static str,
    /// How long others are preferred, or nothing at all is sent.
    lasts_ms: Option<u128>,
    /// Share of the requests that it is considered for after it came back.
    warming: Option<f64>,
}

/// As an object, in the strategy's order.
struct Scores<'a>(&'a [Score]);

impl Serialize for Scores<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|score| (score.name, score.value)))
    }
}

/// `POST /admin/explain`: what would become of an inference request with this body and these headers, runner
/// by runner; or of a generic one with these headers, if the query has its `path` and `method`. Nothing is sent, reserved or counted.
pub(crate) async fn explain<B>(
    shared: &Shared,
    request: &Parts,
    body: B,
    admin: &Identity,
) -> Result<Response<Bytes>, Box<ApiError>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let body = gather(body, &request.headers, shared.limits).await?;
    let identity = match request.headers.get(&TENANT) {
        None => admin.clone(),
        Some(name) => {
            let tenant = name.to_str().ok().and_then(|name| Tenant::new(name).ok());
            let wrong =
                || ApiError::bad_request(format!("The header `{TENANT}` must be the name of a tenant."));
            admin.clone().of_tenant(tenant.ok_or_else(wrong)?)
        }
    };
    let (requirements, priority) = match GenericAsked::explained(shared, request, &identity)? {
        Some(asked) => (asked.requirements, asked.claim.priority),
        None => {
            let mut asked = Asked::read(shared, Inference::Chat, &request.headers, &body, &identity)?;
            asked.hash_prompt(shared, &identity);
            (asked.requirements, asked.priority)
        }
    };
    let explanation = shared.dispatcher.explain(&requirements);
    let queue = shared.dispatcher.queue();
    let view = Explanation {
        model: requirements.model.as_ref().map(|model| model.as_str()),
        strategy: explanation.strategy,
        targets: explanation.targets.iter().map(|model| model.as_str()).collect(),
        needs: requirements.resources.map(NeedsView::from),
        labels: &requirements.labels,
        asks_for: requirements.features.iter().map(Feature::field).collect(),
        workload: Work::new(&requirements.workload),
        priority: priority.as_str(),
        tenant: identity.tenant().map(Tenant::as_str),
        queue: QueueView::new(&queue),
        runners: explanation.runners.iter().map(|runner| RunnerView::new(shared, runner)).collect(),
    };
    Ok(json(StatusCode::OK, &view))
}

impl<'a> QueueView<'a> {
    fn new(queue: &'a QueueReport) -> Self {
        let lane = |lane: &'a LaneReport| LaneView {
            model: lane.model.as_ref().map(|model| model.as_str()),
            waiting: lane.waiting,
            oldest_ms: lane.oldest.as_millis(),
            slots_per_s: lane.slots_per_s,
        };
        Self {
            waiting: queue.waiting,
            max_waiting: queue.max_waiting,
            lanes: queue.lanes.iter().map(lane).collect(),
            more_lanes: queue.more_lanes,
        }
    }
}

impl Work {
    fn new(workload: &Workload) -> Self {
        Self {
            prompt_tokens: workload.prompt_tokens,
            max_tokens: workload.max_tokens,
            session: workload.session.map(|session| format!("{session:016x}")),
            prompt_blocks: workload.prefix.hashes().len(),
            deadline_ms: workload.deadline.map(|deadline| deadline.as_millis()),
        }
    }
}

impl<'a> RunnerView<'a> {
    fn new(shared: &Shared, explained: &'a Explained) -> Self {
        let Explained { runner, model, rank, is_fallback, refusal, scores } = explained;
        let load = runner.load();
        let model = model.as_ref().map(|model| model.as_str());
        let described = model.and_then(|model| runner.model(model));
        Self {
            id: runner.id().as_str(),
            model,
            rank: *rank,
            is_fallback: *is_fallback,
            verdict: refusal.as_ref().map_or("eligible", refusals::code),
            why: refusal.as_ref().map(ToString::to_string),
            scores: Scores(scores),
            load: LoadView {
                in_flight: load.in_flight,
                slots: load.slots.map(|slots| slots.get()),
                foreign_requests: load.foreign,
                report_age_ms: load.report_age.map(|age| age.as_millis()),
                tokens: load.tokens,
                prefill_tokens: load.prefill_tokens,
            },
            health: runner.status().health.as_str(),
            draining: runner.is_draining(),
            standing: StandingView::new(&shared.dispatcher.standing(runner)),
            model_state: described.map(|model| model.state.as_str()),
            model_in_flight: model.and_then(|model| Some(runner.model_usage(model)?.0)),
        }
    }
}

impl StandingView {
    fn new(standing: &Standing) -> Self {
        let until = match standing.breaker {
            BreakerState::Open { until, .. } => Some(until),
            _ => standing.held.map(|(until, _)| until).into_iter().chain(standing.ejected).max(),
        };
        Self {
            standing: standing.as_str(),
            breaker: standing.breaker.as_str(),
            lasts_ms: until.map(|until| until.saturating_duration_since(Instant::now()).as_millis()),
            warming: standing.warming,
        }
    }
}
