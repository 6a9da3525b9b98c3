//! A dispatcher over mock runners.

#![allow(dead_code, unreachable_pub)]

use std::sync::Arc;
use std::time::Duration;

use gateway_core::{
    Deadlines, Dispatcher, DispatcherBuilder, InMemoryRegistry, ModelId, QueuePolicy, Registry, RetryPolicy,
    RunnerId, RunnerSpec, RunnerStatus,
};
use gateway_testkit::{Fault, MockEngine, Recorder, Script};

pub fn model() -> ModelId {
    ModelId::new("m").unwrap()
}

pub fn spec(id: &str) -> RunnerSpec {
    RunnerSpec::new(RunnerId::new(id).unwrap())
}

pub struct Setup {
    pub registry: Arc<InMemoryRegistry>,
    pub recorder: Arc<Recorder>,
    pub dispatcher: Dispatcher,
    pub engines: Vec<MockEngine>,
}

pub fn setup(engines: Vec<MockEngine>, change: impl FnOnce(DispatcherBuilder) -> DispatcherBuilder) -> Setup {
    let registry = Arc::new(InMemoryRegistry::new());
    for (number, engine) in engines.iter().enumerate() {
        registry.join(spec(&format!("r{number}")), RunnerStatus::serving([model()]), engine.link());
    }
    let recorder = Recorder::new();
    // Round robin: whom a test means to be tried first is tried first.
    let builder = Dispatcher::builder(registry.clone())
        .balancer(Arc::new(gateway_core::RoundRobin::default()))
        .observer(recorder.clone())
        .deadlines(Deadlines {
            first_byte: Some(Duration::from_secs(10)),
            idle: Some(Duration::from_secs(5)),
            total: Some(Duration::from_secs(60)),
        })
        .queue(QueuePolicy::OFF)
        .retry(RetryPolicy { max_failures: 3, ..RetryPolicy::default() });
    Setup { registry, recorder, dispatcher: change(builder).build(), engines }
}

pub fn same(builder: DispatcherBuilder) -> DispatcherBuilder {
    builder
}

pub fn fine() -> MockEngine {
    MockEngine::new(|_| Script::chunks(["fine"]))
}

pub fn failing(fault: Fault) -> MockEngine {
    MockEngine::new(move |_| Script::chunks(["one", "two"]).fault(fault))
}

pub fn status(status: u16, body: &'static str) -> MockEngine {
    MockEngine::new(move |_| Script::status(status, body).header(http::header::RETRY_AFTER, "7"))
}

impl Setup {
    pub async fn all_zero(&self) {
        gateway_testkit::assert_all_zero(&self.dispatcher, &self.engines).await;
    }
}
