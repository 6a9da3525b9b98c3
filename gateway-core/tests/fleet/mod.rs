//! Runners whose speed is scripted, and picks among them without a dispatcher.

#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::{
    Balancer, Candidates, CapabilityRouter, Dispatcher, InMemoryRegistry, ModelId, Registry, Requirements,
    Reservation, ResourceReport, Resources, Router, Runner, RunnerId, RunnerSpec, RunnerStatus, Score,
    Workload,
};
use gateway_testkit::{MockEngine, Script};

/// Names a runner to the requests that are meant for it alone.
const NAME: &str = "name";

pub fn model() -> ModelId {
    ModelId::new("m").unwrap()
}

pub fn spec(id: &str) -> RunnerSpec {
    RunnerSpec::new(RunnerId::new(id).unwrap()).label(NAME, id)
}

pub fn status() -> RunnerStatus {
    RunnerStatus::serving([model()])
}

pub fn with_resources(total: Resources, available: Resources) -> RunnerStatus {
    RunnerStatus {
        resources: ResourceReport {
            total: Some(total),
            available: Some(available),
            ..ResourceReport::default()
        },
        ..status()
    }
}

pub fn needs() -> Requirements {
    Requirements::model(model())
}

pub fn tokens(prompt: u32, answer: u32) -> Requirements {
    let workload = Workload { prompt_tokens: Some(prompt), max_tokens: Some(answer), ..Workload::default() };
    Requirements { workload, ..needs() }
}

#[derive(Default)]
pub struct TestFleet {
    pub registry: Arc<InMemoryRegistry>,
}

impl TestFleet {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn join(&self, spec: RunnerSpec, status: RunnerStatus) {
        self.registry.join(spec, status, MockEngine::new(|_| Script::text("")).link());
    }

    /// A runner that takes so long for the first byte, and so long for each of ten further chunks.
    pub fn join_timed(&self, spec: RunnerSpec, first_byte: Duration, interval: Duration) {
        let engine = MockEngine::new(move |_| {
            Script::chunks(["x"; 11]).delay(first_byte - interval).interval(interval)
        });
        self.registry.join(spec, status(), engine.link());
    }

    pub fn runner(&self, id: &str) -> Arc<Runner> {
        self.registry.fleet().runner(id).unwrap().clone()
    }

    pub fn try_pick(&self, balancer: &dyn Balancer, requirements: &Requirements) -> Option<Reservation> {
        let fleet = self.registry.fleet();
        let pool = CapabilityRouter.pool(requirements, &fleet);
        balancer.pick(requirements, &Candidates::new(pool, &CapabilityRouter, requirements, &[]))
    }

    pub fn pick(&self, balancer: &dyn Balancer, requirements: &Requirements) -> Reservation {
        self.try_pick(balancer, requirements).expect("somebody has room")
    }

    /// Who is picked, given back at once.
    pub fn picked(&self, balancer: &dyn Balancer, requirements: &Requirements) -> String {
        self.pick(balancer, requirements).runner().id().to_string()
    }

    /// Picks so often, holding everything.
    pub fn burst(
        &self,
        balancer: &dyn Balancer,
        requirements: &Requirements,
        picks: usize,
    ) -> Vec<Reservation> {
        (0..picks).map_while(|_| self.try_pick(balancer, requirements)).collect()
    }

    /// Has the named runner answer a request of so many prompt tokens, and measure it.
    pub async fn measure(&self, id: &str, prompt: u32) {
        let dispatcher = Dispatcher::builder(self.registry.clone()).build();
        let mut request = gateway_testkit::request(&model(), "{}");
        request.requirements = tokens(prompt, 10);
        request.requirements.labels.insert(NAME.to_owned(), id.to_owned());
        let answer = dispatcher.dispatch(request).await.unwrap();
        assert_eq!(answer.runner.id().as_str(), id);
        gateway_testkit::text(answer.response).await.unwrap();
    }

    pub fn scores(&self, balancer: &dyn Balancer, requirements: &Requirements, id: &str) -> Vec<Score> {
        let mut scores = Vec::new();
        balancer.scores(requirements, &self.runner(id), &mut scores);
        scores
    }

    pub fn assert_all_zero(&self) {
        for runner in self.registry.fleet().runners() {
            let load = runner.load();
            assert_eq!((load.in_flight, load.tokens, load.prefill_tokens), (0, 0, 0), "{}", runner.id());
        }
    }
}

/// How many of these are held on each runner.
pub fn counts(held: &[Reservation]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for reservation in held {
        *counts.entry(reservation.runner().id().to_string()).or_default() += 1;
    }
    counts
}

pub fn value(scores: &[Score], name: &str) -> Option<f64> {
    scores.iter().find(|score| score.name == name).map(|score| score.value)
}
