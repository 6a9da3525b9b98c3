//! Tasks go to runners that report their capacity: none where too little is free, and everywhere where some is.

mod support;

use std::sync::Arc;
use std::time::Duration;

use gateway_core::{
    CancellationToken, Dispatch, DispatchErrorKind, Dispatcher, Health, InMemoryRegistry, ModelId,
    QueuePolicy, Registry, Requirements, ResourceAware, Resources, RunnerSource,
};
use gateway_testkit::ScriptedNeutrino;
use gateway_transport_http::{EngineKind, HttpRunner, HttpRunners};
use support::*;
use tokio::task::JoinSet;

struct Fleet {
    registry: Arc<InMemoryRegistry>,
    dispatcher: Arc<Dispatcher>,
    _stop: tokio_util::sync::DropGuard,
}

async fn fleet(runners: HttpRunners, queue: QueuePolicy, count: usize) -> Fleet {
    let registry = Arc::new(InMemoryRegistry::new());
    let stop = CancellationToken::new();
    let mut events = registry.events();
    tokio::spawn(Box::new(runners).run(registry.clone(), stop.clone()));
    soon("joining", async {
        while registry.fleet().runners().len() < count {
            events.next().await.unwrap();
        }
    })
    .await;
    let dispatcher = Dispatcher::builder(registry.clone()).balancer(Arc::new(ResourceAware)).queue(queue);
    Fleet { registry, dispatcher: Arc::new(dispatcher.build()), _stop: stop.drop_guard() }
}

fn has(gpus: f64) -> Resources {
    Resources { cpus: 64.0, gpus, memory_gb: 256.0 }
}

fn task(gpus: f64, ms: u64) -> Dispatch {
    let body = format!(r#"{{"gpus":{gpus},"cpus":1,"ms":{ms}}}"#);
    let resources = Some(Resources { cpus: 1.0, gpus, memory_gb: 0.0 });
    let mut call = gateway_testkit::request(&ModelId::new("none").unwrap(), body);
    *call.request.uri_mut() = http::Uri::from_static("/tasks/run");
    call.requirements = Requirements { resources, ..Requirements::default() };
    call
}

async fn run(dispatcher: &Dispatcher, task: Dispatch) -> Result<(String, u16), DispatchErrorKind> {
    let answer = dispatcher.dispatch(task).await.map_err(|error| error.kind())?;
    let (runner, status) = (answer.runner.id().to_string(), answer.response.status().as_u16());
    gateway_testkit::text(answer.response).await.unwrap();
    Ok((runner, status))
}

/// Three runners with two, no and one accelerator, and bursts of 50 tasks of which every other needs one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_never_take_more_than_there_is_and_none_is_refused() {
    // The document's form, the shipped one, and one that says the same for so long that all of it is old.
    let runners = [
        ScriptedNeutrino::flat(has(2.0), 128),
        ScriptedNeutrino::nested(has(0.0), 128),
        ScriptedNeutrino::flat(has(1.0), 128).looks_every(Duration::from_millis(500)),
    ];
    let mut servers = Vec::new();
    for runner in &runners {
        servers.push(runner.engine().serve_http().await.unwrap());
    }
    let list = servers
        .iter()
        .zip(["two", "none", "one"])
        .map(|(server, id)| HttpRunner::new(server.url()).unwrap().id(id));
    // Asked so often that reports come in the midst of everything.
    let list = HttpRunners::list(list).kind(EngineKind::Neutrino).probe_interval(Duration::from_millis(5));
    let fleet = fleet(list, QueuePolicy::default(), 3).await;
    for _ in 0..8 {
        let mut burst = JoinSet::new();
        for n in 0..50_u64 {
            let dispatcher = fleet.dispatcher.clone();
            burst.spawn(async move { run(&dispatcher, task((n % 2) as f64, 1 + n % 7)).await });
        }
        while let Some(done) = soon("a burst", burst.join_next()).await {
            assert_eq!(done.unwrap().expect("it waits").1, 200);
        }
    }
    let [two, none, one] = &runners;
    assert_eq!(runners.iter().map(ScriptedNeutrino::too_many).sum::<u64>(), 0);
    assert_eq!(runners.iter().map(ScriptedNeutrino::tasks).sum::<u64>(), 400);
    assert_eq!((none.gpu_tasks(), two.gpu_tasks() + one.gpu_tasks()), (0, 200));
    // By what is free: two thirds and one third.
    assert!((40..=95).contains(&one.gpu_tasks()), "{} of 200", one.gpu_tasks());
    for runner in fleet.registry.fleet().runners() {
        assert_eq!((runner.load().in_flight, runner.status().models.len()), (0, 0));
        assert_eq!(runner.spec().labels["engine"], "neutrino");
        assert_eq!(runner.load().slots.map(|slots| slots.get()), Some(128));
    }
}

#[tokio::test]
async fn without_a_queue_it_is_refused_only_while_none_has_capacity() {
    let runner = ScriptedNeutrino::flat(has(1.0), 8);
    let server = runner.engine().serve_http().await.unwrap();
    let list = HttpRunners::fixed([server.url()])
        .probe_interval(Duration::from_millis(5))
        .capacity_age(Duration::ZERO);
    let fleet = fleet(list, QueuePolicy::OFF, 1).await;
    let dispatcher = fleet.dispatcher.clone();
    let busy = tokio::spawn(async move { run(&dispatcher, task(1.0, 300)).await });
    soon("the task", runner.engine().until(|_| runner.gpu_tasks() == 1)).await;
    assert_eq!(run(&fleet.dispatcher, task(1.0, 0)).await, Err(DispatchErrorKind::NoneEligible));
    assert!(run(&fleet.dispatcher, task(0.0, 0)).await.is_ok());
    assert!(soon("the first", busy).await.unwrap().is_ok());
    assert!(run(&fleet.dispatcher, task(1.0, 0)).await.is_ok(), "free at once, without a report");
    // Somebody else takes it, and gives it back: both are seen.
    runner.use_elsewhere(has(1.0), Duration::from_millis(300));
    let mut events = fleet.registry.events();
    let free = || fleet.registry.fleet().runners()[0].available_resources().map(|free| free.gpus);
    soon("less", async {
        while free() != Some(0.0) {
            let _ = tokio::time::timeout(Duration::from_millis(1), events.next()).await;
        }
    })
    .await;
    assert_eq!(run(&fleet.dispatcher, task(1.0, 0)).await, Err(DispatchErrorKind::NoneEligible));
    soon("more", async {
        while run(&fleet.dispatcher, task(1.0, 0)).await.is_err() {
            let _ = tokio::time::timeout(Duration::from_millis(1), events.next()).await;
        }
    })
    .await;
    assert_eq!(runner.too_many(), 0);
}

#[tokio::test]
async fn an_outage_makes_it_unhealthy_and_its_capacity_unknown() {
    let runner = ScriptedNeutrino::nested(has(1.0), 2);
    let server = runner.engine().serve_http().await.unwrap();
    let list = HttpRunners::fixed([server.url()]).probe_interval(Duration::from_millis(5));
    let fleet = fleet(list, QueuePolicy::OFF, 1).await;
    let mut events = fleet.registry.events();
    let mut until = async |health| {
        soon("its health", async {
            while fleet.registry.fleet().runners()[0].status().health != health {
                events.next().await.unwrap();
            }
        })
        .await;
    };
    runner.set_sick(true);
    until(Health::Unhealthy).await;
    assert_eq!(fleet.registry.fleet().runners()[0].available_resources(), None);
    runner.set_sick(false);
    until(Health::Healthy).await;
    assert!(run(&fleet.dispatcher, task(1.0, 0)).await.is_ok());
}

/// A runner whose slots were not known when it joined has them as soon as its engine tells.
#[tokio::test]
async fn slots_that_become_known_later_count_from_then_on() {
    const PROPS: &str = include_str!("answers/llama_cpp_props.json");
    let server = Scripted::start([("/v1/models", 200, include_str!("answers/llama_cpp_models.json"))]).await;
    let list = HttpRunners::fixed([&server.url]).probe_interval(Duration::from_millis(5));
    let fleet = fleet(list, QueuePolicy::OFF, 1).await;
    let slots = || fleet.registry.fleet().runners()[0].load().slots.map(|slots| slots.get());
    assert_eq!(slots(), None);
    let mut events = fleet.registry.events();
    server.set("/props", 200, PROPS);
    soon("its slots", async {
        while slots() != Some(4) {
            events.next().await.unwrap();
        }
    })
    .await;
    // What changes while it runs changes nothing; after an outage it may be another.
    server.set("/props", 200, &PROPS.replace(r#""total_slots":4"#, r#""total_slots":8"#));
    let asked = server.asked("/props").len();
    soon("some probes", async {
        while server.asked("/props").len() < asked + 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(slots(), Some(4));
    let (models, health) = (include_str!("answers/llama_cpp_models.json"), || {
        fleet.registry.fleet().runners()[0].status().health
    });
    server.set("/v1/models", 500, "");
    soon("an outage", async {
        while health() != Health::Unhealthy {
            events.next().await.unwrap();
        }
    })
    .await;
    server.set("/v1/models", 200, models);
    soon("its slots", async {
        while slots() != Some(8) {
            events.next().await.unwrap();
        }
    })
    .await;
}
