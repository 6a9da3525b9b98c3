//! Workers join when they answer, tell how they are, and serve again after they were killed.

mod support;

use std::sync::Arc;
use std::time::Duration;

use gateway_core::{
    CancellationToken, Feature, FleetEvent, Health, InMemoryRegistry, Registry, RunnerSource,
};
use gateway_transport_grpc::{Dialect, GrpcRunner, GrpcRunners};
use support::{DIALECTS, PATIENCE, Served, Worker, content, events, payload, streamed, text};
use tokio::task::JoinHandle;

/// A source that runs, and what it says of its runners.
struct Running {
    registry: Arc<InMemoryRegistry>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn run(runners: GrpcRunners) -> Running {
    let registry = Arc::new(InMemoryRegistry::new());
    let stop = CancellationToken::new();
    let runners = Box::new(runners.probe_interval(Duration::from_millis(20)));
    let task = tokio::spawn(runners.run(registry.clone(), stop.clone()));
    Running { registry, stop, task }
}

impl Running {
    /// Waits until the fleet is so.
    async fn until(&self, what: &str, wanted: impl Fn(&gateway_core::Fleet) -> bool) {
        let mut events = self.registry.events();
        let waiting = async {
            while !wanted(&self.registry.fleet()) {
                let _: Option<FleetEvent> = events.next().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it ends").expect("no panic");
        assert_eq!(self.registry.fleet().runners().len(), 0);
    }
}

fn health(fleet: &gateway_core::Fleet, id: &str) -> Option<Health> {
    fleet.runner(id).map(|runner| runner.status().health)
}

#[tokio::test]
async fn a_worker_joins_with_the_models_that_it_lists() {
    for dialect in DIALECTS {
        let worker = Worker::says(["hi"]).models("qwen-7b, llama-3 ,,");
        worker.set_health(true, payload([("requests_inflight", "3"), ("backend", "cuda")]));
        let served = worker.serve(dialect).await;
        let running = run(GrpcRunners::connect(served.address()).slots(7).label("zone", "eu"));
        running.until("it joins", |fleet| fleet.runner(served.address()).is_some()).await;
        let runner = running.registry.fleet().runner(served.address()).unwrap().clone();
        let models: Vec<_> = runner.status().models.iter().map(|model| model.id.to_string()).collect();
        assert_eq!(models, ["qwen-7b", "llama-3"]);
        assert_eq!(runner.spec().slots.unwrap().get(), 7);
        assert_eq!(runner.spec().labels["zone"], "eu");
        assert!(runner.spec().lacks.has(Feature::Tools) && !runner.spec().lacks.has(Feature::Stop));
        assert_eq!(runner.status().load.unwrap().active, 3);
        running.stop().await;
    }
}

#[tokio::test]
async fn what_a_worker_allows_is_what_it_gets() {
    let mut worker = Worker::says(["hi"]).models("m");
    let slots = async |worker: &Worker| {
        let served = worker.serve(Dialect::Packaged).await;
        let running = run(GrpcRunners::connect(served.address()));
        running.until("it joins", |fleet| fleet.runner(served.address()).is_some()).await;
        let slots = running.registry.fleet().runner(served.address()).unwrap().spec().slots;
        running.stop().await;
        slots.map(|slots| slots.get())
    };
    assert_eq!(slots(&worker).await, None, "more than anybody would ask for says nothing");
    worker.streams = 20;
    assert_eq!(slots(&worker).await, Some(16));
}

#[tokio::test]
async fn given_models_need_no_answer() {
    let running =
        run(GrpcRunners::list([GrpcRunner::new("127.0.0.1:1").unwrap().id("absent").models(["m"])]));
    running.until("it joins", |fleet| health(fleet, "absent") == Some(Health::Healthy)).await;
    running.until("it is out", |fleet| health(fleet, "absent") == Some(Health::Unhealthy)).await;
    running.stop().await;
}

#[tokio::test]
async fn a_worker_that_was_killed_serves_again_when_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cy_worker.sock");
    let worker = Worker::says(["again"]).models("m");
    let served = Served::unix(worker.clone(), Dialect::Packaged, &path).await;
    let address = served.address().to_owned();
    let running = run(GrpcRunners::connect(&address));
    running.until("it joins", |fleet| health(fleet, &address) == Some(Health::Healthy)).await;
    drop(served);
    running.until("it is missed", |fleet| health(fleet, &address) == Some(Health::Unhealthy)).await;
    // It comes back with the other dialect, which is found out anew.
    let served = Served::unix(worker, Dialect::Plain, &path).await;
    running.until("it is back", |fleet| health(fleet, &address) == Some(Health::Healthy)).await;
    let link = running.registry.fleet().runner(&address).unwrap().link().clone();
    let answer = link.send(streamed()).await.expect("an answer");
    assert_eq!(content(&events(&text(answer).await.unwrap())), "again");
    drop(served);
    running.stop().await;
}

#[tokio::test]
async fn the_workers_own_word_on_its_health_counts() {
    let worker = Worker::says(["hi"]).models("m");
    let served = worker.serve(Dialect::Packaged).await;
    let running = run(GrpcRunners::connect(served.address()));
    running.until("it joins", |fleet| health(fleet, served.address()) == Some(Health::Healthy)).await;
    worker.set_health(false, payload([]));
    running.until("it is ill", |fleet| health(fleet, served.address()) == Some(Health::Unhealthy)).await;
    assert_eq!(running.registry.fleet().runner(served.address()).unwrap().status().models.len(), 1);
    worker.set_health(true, payload([]));
    running.until("it is well", |fleet| health(fleet, served.address()) == Some(Health::Healthy)).await;
    running.stop().await;
}

#[tokio::test]
async fn a_bad_entry_is_left_out_and_found_beforehand() {
    let served = Worker::says(["hi"]).models("m").serve(Dialect::Packaged).await;
    let runners = || GrpcRunners::fixed(["https://h:1", served.address(), served.address()]);
    assert!(runners().validate().unwrap_err().to_string().contains("TLS"));
    let twice = GrpcRunners::fixed([served.address(), served.address()]);
    assert!(twice.validate().unwrap_err().to_string().contains("two workers"));
    let token = GrpcRunners::connect("h:1").token("a\nb").validate().unwrap_err().to_string();
    assert!(token.contains("h:1") && !token.contains("a\nb"), "{token}");
    let running = run(runners());
    running.until("the good one joins", |fleet| fleet.runner(served.address()).is_some()).await;
    assert_eq!(running.registry.fleet().runners().len(), 1);
    running.stop().await;
}
