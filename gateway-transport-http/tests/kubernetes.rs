//! Ready pods of a cluster are runners: against an API server that speaks its wire format, written by hand.
#![cfg(feature = "kubernetes")]

mod cluster;
mod sourcing;
mod support;

use std::time::Duration;

use cluster::{Cluster, Pod, Watch, slice};
use gateway_core::{
    CancellationToken, Dispatcher, FleetEvent, InMemoryRegistry, ModelId, Registry, RunnerSource,
};
use gateway_testkit::{MockEngine, Script, request, text};
use gateway_transport_http::{HttpRunners, Kubernetes};
use serde_json::json;
use sourcing::{Running, next, run};
use support::*;

/// From the cluster's word until the runner is there.
const BOUND: Duration = Duration::from_secs(1);
const MODELS: &str = r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#;

/// Joins before anybody has answered, so that a test is about the cluster only.
fn pinned(pods: Kubernetes) -> HttpRunners {
    HttpRunners::from_inventory(pods).models(["m"])
}

fn serving(running: &Running) -> Vec<String> {
    let fleet = running.registry.fleet();
    let serving = fleet.runners().iter().filter(|runner| !runner.is_draining());
    serving.map(|runner| runner.id().to_string()).collect()
}

impl Running {
    async fn until_serving<const N: usize>(&self, ids: [&str; N]) {
        self.until(&format!("{ids:?}"), |_| serving(self) == ids).await;
    }
}

/// A source that has listed these pods, and its watch.
async fn started<const N: usize>(cluster: &mut Cluster, pods: [Pod; N]) -> (Running, Watch) {
    let running = run(pinned(cluster.pods("app=llm").port("http")));
    cluster.list("10", pods.map(|pod| pod.json())).await;
    let watch = cluster.watch("10").await;
    (running, watch)
}

#[tokio::test]
async fn ready_pods_are_runners() {
    let mut cluster = Cluster::start().await;
    let each = |runner: gateway_transport_http::HttpRunner| runner.machine("gpu");
    let pods = cluster.pods("app=llm,tier!=canary").port("http").label_prefix("inference/").each(each);
    let running = run(pinned(pods));
    let list = [
        Pod::ready("a").label("inference/zone", "eu").label("app", "llm").json(),
        Pod::ready("not-ready").not_ready().json(),
        Pod::ready("no-ip").ip("").json(),
        Pod::ready("terminating").terminating().json(),
        Pod::ready("other-port").port("metrics", 9090).json(),
        Pod::ready("six").ip("fd00::6").json(),
        json!({"metadata": {"name": "starting", "namespace": "inference"}, "spec": {"containers": []}}),
    ];
    let asked = cluster.list("10", list).await;
    assert!(asked.contains("/api/v1/namespaces/inference/pods?"), "{asked}");
    assert!(asked.contains("labelSelector=app%3Dllm%2Ctier%21%3Dcanary"), "{asked}");
    running.until_serving(["inference/a@a0000000", "inference/six@six00000"]).await;
    let fleet = running.registry.fleet();
    let [a, six] = &fleet.runners()[..] else { panic!() };
    assert_eq!(a.spec().labels, [("zone".to_owned(), "eu".to_owned())].into());
    assert_eq!(a.spec().machine.description.as_deref(), Some("gpu"));
    assert_eq!(a.link().describe().address.as_deref(), Some("http://127.0.0.1:8000"));
    assert_eq!(six.link().describe().address.as_deref(), Some("http://[fd00::6]:8000"));
    running.stopped().await;
}

#[tokio::test]
async fn ports_are_found_by_name_by_number_or_by_being_the_first() {
    let pod = || Pod::ready("a").port("metrics", 9090).port("http", 8000);
    for (port, expected) in [(Some("http"), 8000), (Some("9999"), 9999), (None, 9090)] {
        let mut cluster = Cluster::start().await;
        let mut pods = cluster.pods("app=llm");
        if let Some(port) = port {
            pods = pods.port(port);
        }
        let running = run(pinned(pods));
        cluster.list("10", [pod().json()]).await;
        running.until_serving(["inference/a@a0000000"]).await;
        let address = running.runner().link().describe().address;
        assert_eq!(address, Some(format!("http://127.0.0.1:{expected}")));
    }
}

#[tokio::test]
async fn a_pod_that_turns_ready_receives_traffic_within_a_second() {
    let engine = Scripted::start([("/v1/models", 200, MODELS), ("/v1/chat/completions", 200, "fine")]).await;
    let port = engine.url.rsplit(':').next().unwrap().parse().unwrap();
    let mut cluster = Cluster::start().await;
    // Nothing is given: its engine is asked first.
    let running = run(HttpRunners::from_inventory(cluster.pods("app=llm").port("http")));
    cluster.list("10", []).await;
    let mut watch = cluster.watch("10").await;
    let pod = || Pod::ready("a").port("http", port);
    watch.tell("ADDED", pod().not_ready().ip("").json()).await;
    watch.tell("MODIFIED", pod().not_ready().json()).await;
    let mut events = running.registry.events();
    let told = std::time::Instant::now();
    watch.tell("MODIFIED", pod().json()).await;
    let event = tokio::time::timeout(BOUND, next(&mut events)).await.expect("not within a second");
    assert!(
        matches!(&event, FleetEvent::Joined(key) if key.id.as_str() == "inference/a@a0000000"),
        "{event:?}"
    );
    let dispatcher = Dispatcher::builder(running.registry.clone()).build();
    let answer = dispatcher.dispatch(request(&ModelId::new("m").unwrap(), "{}")).await.unwrap();
    assert_eq!(text(answer.response).await.unwrap(), "fine");
    println!("from the cluster's word to the end of the first answer: {:?}", told.elapsed());
    assert!(told.elapsed() < BOUND);
}

#[tokio::test]
async fn a_pod_that_terminates_drains_while_its_request_finishes() {
    let (feed, script) = Script::fed();
    let script = std::sync::Mutex::new(Some(script));
    let engine = MockEngine::new(move |seen| match seen.head.method {
        http::Method::POST => script.lock().unwrap().take().unwrap(),
        _ => Script::text("well"),
    });
    let server = engine.serve_http().await.unwrap();
    let (pod, other) = (|| Pod::ready("a").port("http", server.address().port()), Pod::ready("b"));
    let mut cluster = Cluster::start().await;
    let (running, mut watch) = started(&mut cluster, [pod()]).await;
    running.until_serving(["inference/a@a0000000"]).await;
    let runner = running.runner();
    let dispatcher = Dispatcher::builder(running.registry.clone()).build();
    assert!(feed.send("begun, ").await);
    let answer = dispatcher.dispatch(request(&ModelId::new("m").unwrap(), "{}")).await.unwrap();

    // It is deleted: ready for a while still, then not, then gone.
    watch.tell("MODIFIED", pod().terminating().json()).await;
    running.until("draining", |runners| runners[0].is_draining()).await;
    assert!(runner.try_reserve().is_none());
    watch.tell("MODIFIED", pod().terminating().not_ready().json()).await;
    watch.tell("DELETED", pod().terminating().not_ready().json()).await;
    watch.tell("ADDED", other.json()).await;
    running.until_serving(["inference/b@b0000000"]).await;
    assert!(!runner.has_left(), "its request is under way");
    let mut events = running.registry.events();
    let reading = tokio::spawn(text(answer.response));
    assert!(feed.send("done").await);
    drop(feed);
    assert_eq!(reading.await.unwrap().unwrap(), "begun, done");
    assert!(matches!(next(&mut events).await, FleetEvent::Left(key, _) if key == *runner.key()));
}

#[tokio::test]
async fn a_pod_that_is_not_ready_any_more_goes_and_may_come_back() {
    let mut cluster = Cluster::start().await;
    let (running, mut watch) = started(&mut cluster, [Pod::ready("a")]).await;
    running.until_serving(["inference/a@a0000000"]).await;
    watch.tell("MODIFIED", Pod::ready("a").not_ready().json()).await;
    running.until_serving([]).await;
    watch.tell("MODIFIED", Pod::ready("a").json()).await;
    running.until_serving(["inference/a@a0000000"]).await;
    // One that is told again as it was is not disturbed, though its object has changed.
    let before = running.runner();
    watch.tell("MODIFIED", Pod::ready("a").label("app", "llm").json()).await;
    watch.tell("ADDED", Pod::ready("b").json()).await;
    running.until_serving(["inference/a@a0000000", "inference/b@b0000000"]).await;
    assert_eq!(running.runner().key(), before.key());
}

#[tokio::test]
async fn a_pod_of_the_same_name_made_anew_is_another_runner() {
    let mut cluster = Cluster::start().await;
    let (running, mut watch) = started(&mut cluster, [Pod::ready("llm-0").uid("11111111-aaaa")]).await;
    running.until_serving(["inference/llm-0@11111111"]).await;
    // The end of the first is not seen, as after a lost connection.
    watch.tell("MODIFIED", Pod::ready("llm-0").uid("22222222-bbbb").json()).await;
    running.until_serving(["inference/llm-0@22222222"]).await;
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_from_the_last_bookmark() {
    let mut cluster = Cluster::start().await;
    let (running, mut watch) = started(&mut cluster, [Pod::ready("a")]).await;
    watch.bookmark("4711").await;
    watch.end().await;
    let mut watch = cluster.watch("4711").await;
    watch.tell("ADDED", Pod::ready("b").version("4712").json()).await;
    running.until_serving(["inference/a@a0000000", "inference/b@b0000000"]).await;
}

#[tokio::test]
async fn an_expired_watch_lists_anew_and_disturbs_nobody_who_is_still_there() {
    let mut cluster = Cluster::start().await;
    let (running, mut watch) = started(&mut cluster, [Pod::ready("a"), Pod::ready("b")]).await;
    running.until_serving(["inference/a@a0000000", "inference/b@b0000000"]).await;
    let a = running.runner();
    let gone = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410,
        "message": "too old resource version: 10 (4800)",
    });
    watch.tell("ERROR", gone).await;
    watch.end().await;
    cluster.list("4800", [Pod::ready("a").json(), Pod::ready("c").json()]).await;
    running.until_serving(["inference/a@a0000000", "inference/c@c0000000"]).await;
    assert_eq!(running.runner().key(), a.key());
    let mut watch = cluster.watch("4800").await;
    watch.tell("DELETED", Pod::ready("c").json()).await;
    running.until_serving(["inference/a@a0000000"]).await;
}

#[tokio::test]
async fn a_connection_that_is_cut_is_made_anew_and_nothing_is_lost() {
    let mut cluster = Cluster::start().await;
    let (running, mut watch) = started(&mut cluster, [Pod::ready("a")]).await;
    watch.tell("ADDED", Pod::ready("b").version("11").json()).await;
    running.until_serving(["inference/a@a0000000", "inference/b@b0000000"]).await;
    // In the middle of a word.
    watch.cut().await;
    let mut watch = cluster.watch("11").await;
    assert_eq!(serving(&running).len(), 2);
    watch.tell("DELETED", Pod::ready("a").json()).await;
    running.until_serving(["inference/b@b0000000"]).await;
}

#[tokio::test]
async fn a_server_that_refuses_is_asked_again() {
    let mut cluster = Cluster::start().await;
    let running = run(pinned(cluster.pods("app=llm").port("http")));
    cluster.refuse(403, "pods is forbidden: User cannot list resource").await;
    cluster.list("10", [Pod::ready("a").json()]).await;
    running.until_serving(["inference/a@a0000000"]).await;
    running.stopped().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_way_to_the_cluster_it_tries_again_and_stops_at_once() {
    // There is neither a service account nor a configuration where tests run; if there were, nobody answers
    // in a namespace of this name.
    let source = HttpRunners::from_inventory(Kubernetes::pods("app=llm").namespace("no-such-namespace"));
    let (registry, stop) = (std::sync::Arc::new(InMemoryRegistry::new()), CancellationToken::new());
    let task = tokio::spawn(Box::new(source).run(registry.clone(), stop.clone()));
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(!task.is_finished() && registry.fleet().runners().is_empty());
    stop.cancel();
    soon("stopping", task).await.unwrap();
}

#[tokio::test]
async fn the_endpoints_of_a_service_are_runners_too() {
    let mut cluster = Cluster::start().await;
    let running = run(pinned(cluster.service("llm").port("http")));
    let endpoint = |name: &str, ready: bool, terminating: bool| {
        json!({
            "addresses": ["127.0.0.1"],
            "conditions": {"ready": ready, "serving": ready, "terminating": terminating},
            "nodeName": "node-1", "zone": "eu-1",
            "targetRef": {"kind": "Pod", "namespace": "inference", "name": name, "uid": format!("{name}0000000-1")},
        })
    };
    let lone = json!({"addresses": ["127.0.0.1"], "conditions": {}});
    let list = [
        slice("llm-1", [endpoint("a", true, false), endpoint("b", false, false), endpoint("c", true, true)]),
        slice("llm-2", [lone]),
    ];
    let asked = cluster.list("10", list).await;
    assert!(asked.contains("/apis/discovery.k8s.io/v1/namespaces/inference/endpointslices?"), "{asked}");
    assert!(asked.contains("labelSelector=kubernetes.io%2Fservice-name%3Dllm"), "{asked}");
    let lone = "inference/127.0.0.1:8000@";
    running.until_serving([lone, "inference/a@a0000000"]).await;
    let a = running.registry.fleet().runner("inference/a@a0000000").unwrap().clone();
    assert_eq!(a.link().describe().address.as_deref(), Some("http://127.0.0.1:8000"));

    // It moves to another slice, which is told first; in between it is in both.
    let mut watch = cluster.watch("10").await;
    watch.tell("ADDED", slice("llm-3", [endpoint("a", true, false)])).await;
    watch.tell("MODIFIED", slice("llm-1", [endpoint("b", true, false)])).await;
    running.until_serving([lone, "inference/a@a0000000", "inference/b@b0000000"]).await;
    watch.tell("DELETED", slice("llm-2", [])).await;
    running.until_serving(["inference/a@a0000000", "inference/b@b0000000"]).await;
    assert_eq!(running.registry.fleet().runner("inference/a@a0000000").unwrap().key(), a.key());
    watch.tell("MODIFIED", slice("llm-3", [endpoint("a", true, true)])).await;
    running.until_serving(["inference/b@b0000000"]).await;
}
