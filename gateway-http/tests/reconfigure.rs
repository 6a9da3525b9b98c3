//! Other settings while the gateway runs: nothing is dropped, and what comes next goes by them.

mod common;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::*;
use gateway_core::{
    CancellationToken, Registry, RoundRobin, RunnerId, RunnerSource, RunnerSpec, RunnerStatus,
};
use gateway_http::{BuildError, Gateway};
use http_body_util::BodyExt;
use tokio::task::yield_now;

fn with_key_of_clients(key: &str) -> gateway_http::GatewayBuilder {
    Gateway::builder().client_tokens([key])
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_and_the_next_request_goes_by_the_new_settings() {
    let (link, sender) = Mock::stream("text/event-stream");
    let gateway = with_key_of_clients("old").build().unwrap();
    let spec = RunnerSpec::new(RunnerId::new("r1").unwrap()).slots(2);
    join_with(&gateway, spec, RunnerStatus::serving([model("m")]), &link);
    let ask = |key: &str, body: &'static str| with_key(post("/v1/chat/completions", body), key);

    sender.try_send(Ok(Bytes::from_static(b"data: 1\n\n"))).unwrap();
    let mut stream = send(&gateway, ask("old", r#"{"model":"m"}"#)).await.into_body();
    next_chunk(&mut stream).await.unwrap();

    let next = with_key_of_clients("new").strategy(RoundRobin::default()).max_body_bytes(20);
    gateway.reconfigure(next).unwrap();
    assert_eq!(whole(&gateway, ask("old", r#"{"model":"m"}"#)).await.status, 401);
    assert_eq!(whole(&gateway, ask("new", r#"{"model":"m","n":  1}"#)).await.status, 413);
    assert!(format!("{:?}", gateway.dispatcher()).contains("round-robin"));
    // One registry, and one count of what is under way.
    assert_eq!(gateway.dispatcher().in_flight(), 1);
    assert_eq!(gateway.dispatcher().registry().fleet().runners()[0].load().in_flight, 1);
    assert!(gateway.metrics_text().contains("gateway_runner_in_flight{runner=\"r1\"} 1"));

    let closing = gateway.clone();
    let shutdown = tokio::spawn(async move { closing.shutdown(Duration::from_secs(30)).await });
    yield_now().await;
    assert!(!shutdown.is_finished(), "what came before the change is waited for");
    sender.try_send(Ok(Bytes::from_static(b"data: [DONE]\n\n"))).unwrap();
    drop(sender);
    assert_eq!(stream.collect().await.unwrap().to_bytes(), "data: [DONE]\n\n");
    assert!(shutdown.await.unwrap().is_clean());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_slot_gets_it_also_after_a_change() {
    let gateway = builder().build().unwrap();
    let spec = RunnerSpec::new(RunnerId::new("r1").unwrap()).slots(1);
    join_with(&gateway, spec, RunnerStatus::serving([model("m")]), &Mock::ok());
    let taken = gateway.dispatcher().registry().fleet().runners()[0].try_reserve().unwrap();
    let ask = |gateway: Gateway| {
        tokio::spawn(async move { whole(&gateway, chat(r#"{"model":"m"}"#)).await.status })
    };
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(ask(gateway.clone()));
        yield_now().await;
        gateway.reconfigure(builder()).unwrap();
        waiting.push(ask(gateway.clone()));
        yield_now().await;
    }
    drop(taken);
    for answer in waiting {
        assert_eq!(answer.await.unwrap(), 200);
    }
    assert_eq!(gateway.dispatcher().in_flight(), 0);
}

/// Brings nobody.
struct Nobody;

#[async_trait]
impl RunnerSource for Nobody {
    async fn run(self: Box<Self>, _: Arc<dyn Registry>, stop: CancellationToken) {
        stop.cancelled().await;
    }
}

#[tokio::test]
async fn what_cannot_be_changed_is_an_error_and_changes_nothing() {
    let gateway = with_key_of_clients("old").build().unwrap();
    let error = gateway.reconfigure(with_key_of_clients("new").runners(Nobody)).unwrap_err();
    assert!(matches!(error, BuildError::Lasting { .. }) && error.to_string().contains("runner sources"));
    assert_eq!(gateway.reconfigure(Gateway::builder()).unwrap_err(), BuildError::NoClients);
    assert_eq!(whole(&gateway, with_key(get("/v1/models"), "old")).await.status, 200);
    assert_eq!(whole(&gateway, with_key(get("/v1/models"), "new")).await.status, 401);
}
