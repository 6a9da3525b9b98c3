//! Runners of a fixed list join, fall ill, get well and leave.

mod sourcing;
mod support;

use std::time::Duration;

use gateway_core::{FleetEvent, Health, LeaveReason, ModelState, Registry};
use gateway_transport_http::{HttpRunner, HttpRunners};
use sourcing::run;
use support::*;

const MODELS: &str = r#"{"object":"list","data":[{"id":"m","object":"model","owned_by":"x"}]}"#;

fn quick(runners: HttpRunners) -> HttpRunners {
    runners.probe_interval(Duration::from_millis(5))
}

fn host(url: &str) -> &str {
    url.strip_prefix("http://").unwrap()
}

#[tokio::test]
async fn it_joins_when_its_engine_has_answered() {
    let server = Scripted::start([("/v1/models", 503, "Loading model")]).await;
    let running = run(quick(HttpRunners::fixed([&server.url])));
    soon("some probes", async {
        while server.asked("/v1/models").len() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(running.registry.fleet().runners().is_empty());
    server.set("/props", 200, r#"{"total_slots":6}"#);
    server.set("/v1/models", 200, MODELS);
    running.until("joining", |runners| !runners.is_empty()).await;
    let runner = running.runner();
    assert_eq!(runner.id().as_str(), host(&server.url));
    assert_eq!(runner.status().models[0].state, ModelState::Loaded);
    assert_eq!(runner.load().slots.map(|slots| slots.get()), Some(6));
    assert!(runner.is_available());
    assert_eq!(runner.link().describe().address.as_deref(), Some(&*server.url));
}

#[tokio::test]
async fn pinned_models_join_before_anything_answers() {
    let server = Server::start(|_, mut peer| async move { peer.ended().await }).await;
    let running = run(HttpRunners::fixed([&server.url]).models(["a", "b"]).slots(3));
    running.until("joining", |runners| !runners.is_empty()).await;
    let runner = running.runner();
    assert_eq!(runner.status().health, Health::Healthy);
    assert!(runner.model("a").is_some() && runner.model("b").is_some());
    assert_eq!(runner.load().slots.map(|slots| slots.get()), Some(3));
}

#[tokio::test]
async fn three_failures_make_it_unhealthy_and_one_success_heals() {
    for pinned in [false, true] {
        let server = Scripted::start([("/v1/models", 200, MODELS)]).await;
        let mut runners = quick(HttpRunners::fixed([&server.url]));
        if pinned {
            runners = runners.models(["m"]);
        }
        let running = run(runners);
        running.until("joining", |runners| !runners.is_empty()).await;
        let asked = server.asked("/v1/models").len();
        server.set("/v1/models", 500, "broken");
        running.until("falling ill", |runners| runners[0].status().health == Health::Unhealthy).await;
        assert!(server.asked("/v1/models").len() >= asked + 3);
        assert!(running.runner().model("m").is_some(), "it still has its models");
        server.set("/v1/models", 200, MODELS);
        running.until("healing", |runners| runners[0].status().health == Health::Healthy).await;
        running.stopped().await;
    }
}

#[tokio::test]
async fn its_models_follow_the_engine() {
    let server = Scripted::start([("/v1/models", 200, MODELS)]).await;
    let running = run(quick(HttpRunners::fixed([&server.url])));
    running.until("joining", |runners| !runners.is_empty()).await;
    server.set("/v1/models", 200, &MODELS.replace("\"m\"", "\"other\""));
    running.until("the new model", |runners| runners[0].model("other").is_some()).await;
    assert!(running.runner().model("m").is_none());
}

#[tokio::test]
async fn pinned_runners_are_asked_for_their_health_only() {
    let server = Scripted::start([("/health", 200, "{}"), ("/v1/models", 200, MODELS)]).await;
    let running = run(quick(HttpRunners::fixed([&server.url])).models(["a"]));
    soon("some probes", async {
        while server.asked("/health").len() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(server.asked("/v1/models").is_empty());
    assert!(running.runner().model("m").is_none());
}

#[tokio::test]
async fn one_bad_entry_never_stops_the_rest() {
    let server = Scripted::start([("/v1/models", 200, MODELS)]).await;
    let dead = Server::answering("").await;
    let nobody = dead.url.clone();
    dead.stop_listening().await;
    let runners = quick(HttpRunners::fixed(["https://tls:1", &nobody, "nonsense", &server.url]));
    let error = runners.validate().unwrap_err();
    assert!(error.to_string().contains("https://tls:1"), "{error}");
    let running = run(runners);
    running.until("joining", |runners| !runners.is_empty()).await;
    assert_eq!(running.registry.fleet().runners().len(), 1);
    assert_eq!(running.runner().id().as_str(), host(&server.url));
}

#[tokio::test]
async fn what_an_entry_says_itself_goes_before_what_the_list_says() {
    let server = Scripted::start([("/v1/models", 200, MODELS)]).await;
    let entry = HttpRunner::new(&server.url)
        .unwrap()
        .id("gpu-1")
        .machine("gpu")
        .label("zone", "eu")
        .slots(2)
        .api_key("own");
    let plain = HttpRunner::new(&server.url).unwrap();
    let list = quick(HttpRunners::list([entry, plain])).slots(9).api_key("list's");
    assert!(list.validate().is_ok() && !format!("{list:?}").contains("own"));
    let running = run(list);
    running.until("joining", |runners| runners.len() == 2).await;
    let fleet = running.registry.fleet();
    let spec = fleet.runner("gpu-1").unwrap().spec();
    assert_eq!((spec.slots.unwrap().get(), spec.machine.description.as_deref()), (2, Some("gpu")));
    assert_eq!(spec.labels["zone"], "eu");
    let plain = fleet.runner(host(&server.url)).unwrap();
    assert_eq!(plain.spec().slots.unwrap().get(), 9);
    let keys: Vec<_> = server.asked("/v1/models");
    for key in ["Bearer own", "Bearer list's"] {
        assert!(keys.iter().any(|asked| asked.header("authorization") == Some(key)), "{key}");
    }
}

#[tokio::test]
async fn bad_names_and_keys_are_found_beforehand() {
    let runner = || HttpRunner::new("http://h:1").unwrap();
    for (bad, word) in [
        (runner().id(""), "empty"),
        (runner().models(["a", "x\ny"]), "control"),
        (runner().api_key("se\ncret"), "API key"),
    ] {
        let error = bad.validate().unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("http://h:1") && !error.contains("cret"), "{error}");
        assert!(HttpRunners::list([bad]).validate().is_err());
    }
    assert!(HttpRunners::fixed(["http://h:1"]).models([""]).validate().is_err());
}

#[tokio::test]
async fn on_stop_it_leaves_and_its_link_is_closed() {
    let server = Scripted::start([("/v1/models", 200, MODELS)]).await;
    let running = run(HttpRunners::fixed([&server.url]));
    running.until("joining", |runners| !runners.is_empty()).await;
    let runner = running.runner();
    let mut events = running.registry.events();
    let registry = running.stopped().await;
    assert!(registry.fleet().runners().is_empty());
    assert_eq!(events.next().await, Some(FleetEvent::Left(runner.key().clone(), LeaveReason::Shutdown)));
    assert!(runner.link().send(get("/")).await.unwrap_err().is_not_sent());
}

#[tokio::test]
async fn stopping_waits_for_no_probe() {
    let server = Server::start(|_, mut peer| async move { peer.ended().await }).await;
    let running = run(HttpRunners::fixed([&server.url]));
    soon("the first probe", async {
        while server.connections() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let asked = std::time::Instant::now();
    running.stopped().await;
    assert!(asked.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn an_empty_list_runs_until_it_is_stopped() {
    let running = run(HttpRunners::fixed::<&str>([]));
    tokio::task::yield_now().await;
    assert!(!running.task.is_finished());
    running.stopped().await;
}

#[tokio::test]
async fn a_runner_that_was_replaced_stays_replaced() {
    let server = Scripted::start([("/v1/models", 200, MODELS)]).await;
    let running = run(quick(HttpRunners::fixed([&server.url])));
    running.until("joining", |runners| !runners.is_empty()).await;
    let old = running.runner();
    let new = running.registry.join((*old.spec()).clone(), old.status().clone(), old.link().clone());
    let registry = running.stopped().await;
    assert_eq!(registry.fleet().runners()[0].key(), &new);
}
