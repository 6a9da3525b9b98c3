//! When every runner is full, requests wait: in whose order, for how long, and what is to be seen of it.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use gateway_core::{Priority, QueuePolicy, Reservation, RunnerId, RunnerSpec, RunnerStatus, Tenant};
use gateway_http::{BearerTokens, Gateway, GatewayBuilder, Identity};
use http::Request;
use http_body_util::Full;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::Instant;

/// A gateway with one slot, which is taken.
fn full(builder: GatewayBuilder) -> (Gateway, Reservation) {
    let gateway = builder.build().unwrap();
    let spec = RunnerSpec::new(RunnerId::new("r1").unwrap()).slots(1);
    join_with(&gateway, spec, RunnerStatus::serving([model("m")]), &Mock::ok());
    let taken = gateway.dispatcher().registry().fleet().runners()[0].try_reserve().unwrap();
    (gateway, taken)
}

fn chat_with(
    key: &str,
    headers: &[(&'static str, &'static str)],
    body: &'static str,
) -> Request<Full<Bytes>> {
    let mut request = with_key(post("/v1/chat/completions", body), key);
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

/// Requests that wait, and say when they have been served.
struct Line {
    gateway: Gateway,
    send: mpsc::UnboundedSender<&'static str>,
    served: mpsc::UnboundedReceiver<&'static str>,
}

impl Line {
    fn new(gateway: &Gateway) -> Self {
        let (send, served) = mpsc::unbounded_channel();
        Self { gateway: gateway.clone(), send, served }
    }

    /// Comes back when the request stands in the queue.
    async fn up(&self, name: &'static str, request: Request<Full<Bytes>>) {
        let (gateway, send) = (self.gateway.clone(), self.send.clone());
        let depth = self.gateway.dispatcher().queue_depth();
        tokio::spawn(async move {
            let answer = whole(&gateway, request).await;
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            let reason = answer.header("x-router-reason").unwrap();
            assert_eq!(reason, "least-loaded; waited_ms=250", "{name}");
            send.send(name).unwrap();
        });
        while self.gateway.dispatcher().queue_depth() == depth {
            yield_now().await;
        }
    }

    /// Frees the slot a quarter of a second later, and says in which order it was used.
    async fn served(mut self, taken: Reservation) -> Vec<&'static str> {
        tokio::time::advance(Duration::from_millis(250)).await;
        drop((taken, self.send));
        let mut order = Vec::new();
        while let Some(name) = self.served.recv().await {
            order.push(name);
        }
        order
    }
}

const M: &str = r#"{"model":"m"}"#;

#[tokio::test(start_paused = true)]
async fn the_more_urgent_goes_first_as_far_as_it_was_granted() {
    let granted = Identity::named("granted").up_to(Priority::High);
    let lowered = Identity::named("lowered").up_to(Priority::Low);
    let tokens = BearerTokens::new(["plain"])
        .and_then(|tokens| tokens.with_identity(granted, "granted")?.with_identity(lowered, "lowered"))
        .unwrap();
    let (gateway, taken) = full(Gateway::builder().client_authenticator(tokens));
    let line = Line::new(&gateway);
    let flex = r#"{"model":"m","service_tier":"flex"}"#;
    let urgent = r#"{"model":"m","service_tier":"priority"}"#;
    line.up("lowered, asks for high", chat_with("lowered", &[("x-priority", "high")], M)).await;
    line.up("flex", chat_with("plain", &[], flex)).await;
    line.up("nothing said", chat_with("granted", &[], M)).await;
    line.up("plain, asks for high", chat_with("plain", &[("x-priority", "high")], M)).await;
    line.up("tier", chat_with("granted", &[], urgent)).await;
    line.up("high", chat_with("granted", &[("x-priority", "high")], flex)).await;
    let depth = |priority: &str| format!("gateway_queue_depth{{priority=\"{priority}\"}} 2");
    let text = gateway.metrics_text();
    for priority in ["high", "normal", "low"] {
        assert!(text.contains(&depth(priority)), "{text}");
    }
    let order = line.served(taken).await;
    assert_eq!(order[..2], ["tier", "high"]);
    assert_eq!(order[2..4], ["nothing said", "plain, asks for high"]);
    assert_eq!(order[4..], ["lowered, asks for high", "flex"]);
}

#[tokio::test(start_paused = true)]
async fn tenants_take_turns_however_many_keys_they_have() {
    let team = |key: &str| Identity::named(key.to_owned()).of_tenant(Tenant::new("team").unwrap());
    let tokens = BearerTokens::new(["single"])
        .and_then(|tokens| tokens.with_identity(team("a"), "a")?.with_identity(team("b"), "b"))
        .unwrap();
    let (gateway, taken) = full(Gateway::builder().client_authenticator(tokens));
    let line = Line::new(&gateway);
    for name in ["team 1", "team 2", "team 3"] {
        let key = if name == "team 2" { "b" } else { "a" };
        line.up(name, chat_with(key, &[], M)).await;
    }
    line.up("single", chat_with("single", &[], M)).await;
    assert_eq!(line.served(taken).await, ["team 1", "single", "team 2", "team 3"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_longer_than_they_want_nor_than_they_may() {
    let policy = QueuePolicy { patience: Duration::from_secs(20), ..QueuePolicy::default() };
    let (gateway, _taken) = full(builder().queue(policy));
    for (timeout, waits) in [("1500", 1_500), ("60000", 20_000)] {
        let started = Instant::now();
        let answer = whole(&gateway, chat_with(CLIENT, &[("x-request-timeout-ms", timeout)], M)).await;
        assert_eq!((answer.status, answer.error().1.as_deref()), (503, Some("queue_timeout")));
        assert_eq!(started.elapsed().as_millis(), waits, "{timeout}");
    }
    let text = gateway.metrics_text();
    assert!(text.contains(r#"gateway_queue_left_total{end="timed_out"} 2"#), "{text}");
    assert!(text.contains("gateway_queue_wait_seconds_count 2"), "{text}");
    assert!(text.contains(r#"gateway_refused_total{reason="queue_timeout"} 2"#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_to_be_seen() {
    let policy = QueuePolicy { max_waiting: 1, ..QueuePolicy::default() };
    let (gateway, taken) = full(builder().queue(policy));
    let line = Line::new(&gateway);
    line.up("waits", chat_with(CLIENT, &[], M)).await;
    assert_eq!(whole(&gateway, chat(M)).await.status, 429);
    let explained = whole(&gateway, as_admin(post("/admin/explain", M))).await.json();
    let queue = &explained["queue"];
    assert_eq!((queue["waiting"].as_u64(), queue["max_waiting"].as_u64()), (Some(1), Some(1)));
    let lane = &queue["lanes"][0];
    assert_eq!((lane["model"].as_str(), lane["waiting"].as_u64()), (Some("m"), Some(1)));
    assert!(lane["oldest_ms"].is_u64(), "{lane}");
    assert_eq!(explained["tenant"], "key-1");
    assert!(gateway.metrics_text().contains("gateway_queue_refused_total 1"));
    assert_eq!(line.served(taken).await, ["waits"]);
    let text = gateway.metrics_text();
    assert!(text.contains(r#"gateway_queue_left_total{end="served"} 1"#), "{text}");
    assert!(text.contains(r#"gateway_queue_depth{priority="normal"} 0"#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn comments_come_while_a_slot_is_waited_for_and_who_leaves_gives_up_the_place() {
    let (gateway, taken) = full(builder().sse_keepalive(Duration::from_secs(1)));
    let streamed = r#"{"model":"m","stream":true}"#;
    let mut body = send(&gateway, chat(streamed)).await.into_body();
    assert_eq!(next_chunk(&mut body).await.unwrap(), ": waiting\n\n");
    assert_eq!(gateway.dispatcher().queue_depth(), 1);
    drop(body);
    assert_eq!(gateway.dispatcher().queue_depth(), 0);

    let response = send(&gateway, chat(streamed)).await;
    let answer = Whole::of(response).await;
    let text = String::from_utf8_lossy(&answer.body);
    assert!(text.contains("queue_timeout") && text.ends_with("data: [DONE]\n\n"), "{text}");
    drop(taken);
}
