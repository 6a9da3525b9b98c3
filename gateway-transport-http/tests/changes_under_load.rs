//! The list changes while requests are under way: not one of them fails.

mod sourcing;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gateway_core::{Dispatcher, ModelId, Registry};
use gateway_testkit::{MockEngine, Script, request, text};
use gateway_transport_http::{HttpRunner, HttpRunners};
use sourcing::run;
use support::soon;
use tokio::task::JoinSet;

const REQUESTS: usize = 10_000;
const AT_ONCE: usize = 32;
const CHANGES: usize = 20;

fn engine() -> MockEngine {
    MockEngine::new(|seen| match (seen.head.method.as_str(), seen.head.uri.path()) {
        ("GET", "/v1/models") => Script::text(r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#),
        ("GET", _) => Script::status(404, ""),
        // Long enough that some are under way at every change.
        _ => Script::chunks(["one, ", "two, ", "three"]).interval(Duration::from_millis(1)),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_one_request_fails() {
    let engines = [engine(), engine(), engine()];
    let mut servers = Vec::new();
    for engine in &engines {
        servers.push(engine.serve_http().await.unwrap());
    }
    let entry = |which: usize, slots: usize| {
        let runner = HttpRunner::new(servers[which].url()).unwrap().id(format!("r{which}"));
        runner.slots(u32::try_from(slots).unwrap())
    };
    let (handle, runners) = HttpRunners::handle();
    handle.set(vec![entry(0, 64), entry(1, 64)]);
    let running = run(runners.probe_interval(Duration::from_millis(50)));
    running.until("joining", |runners| runners.len() == 2).await;

    let dispatcher = Dispatcher::builder(running.registry.clone()).build();
    let (model, done) = (ModelId::new("m").unwrap(), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (dispatcher, model, done) = (dispatcher.clone(), model.clone(), done.clone());
        clients.spawn(async move {
            while done.fetch_add(1, Ordering::Relaxed) < REQUESTS {
                let answer = dispatcher.dispatch(request(&model, "{}")).await.expect("a request fails");
                assert_eq!(text(answer.response).await.expect("an answer breaks off"), "one, two, three");
            }
        });
    }
    for change in 0..CHANGES {
        soon("the load", async {
            while done.load(Ordering::Relaxed) < REQUESTS * (change + 1) / (CHANGES + 1) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        // One goes, one comes or comes back, and one that stays has changed.
        let (stays, comes) = (change % 3, (change + 1) % 3);
        let slots = 65 + change;
        handle.set(vec![entry(stays, slots), entry(comes, 64)]);
        running
            .until("the change", |runners| {
                let is_new = |slots: usize| slots == 65 + change;
                let changed =
                    runners.iter().any(|runner| is_new(runner.spec().slots.unwrap().get() as usize));
                changed && runners.iter().filter(|runner| !runner.is_draining()).count() == 2
            })
            .await;
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    running.until("draining", |runners| runners.len() == 2).await;
    assert!(running.registry.fleet().runners().iter().all(|runner| runner.load().in_flight == 0));
    let served: Vec<_> = engines.iter().map(|engine| engine.counts()).collect();
    println!("{served:?}");
    assert!(served.iter().all(|counts| counts.started > 500 && counts.aborted == 0), "{served:?}");
}
