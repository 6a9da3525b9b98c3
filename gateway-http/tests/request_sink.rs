//! Sinks are told of every request what the gateway knows of it, and nothing that is secret.

mod common;

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::*;
use gateway_core::{LinkError, ModelRoutes, RunnerId, RunnerSpec, RunnerStatus, Tenant};
use gateway_http::{
    BearerTokens, BuildError, Decision, Drained, Gateway, GatewayBuilder, GenericRoute, Identity,
    RequestRecord, RequestSink,
};
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::sync::Notify;

/// What a sink was told, in its own words.
#[derive(Debug, Clone)]
struct Row {
    id: String,
    route: &'static str,
    method: String,
    path: String,
    models: (Option<String>, Option<String>),
    tenant: Option<String>,
    runner: Option<String>,
    tries: u32,
    hedged: bool,
    status: u16,
    outcome: &'static str,
    times: (Option<Duration>, Option<Duration>, Duration),
    bytes: (Option<u64>, u64),
    tokens: (Option<u64>, Option<u64>),
    age: Duration,
    whole: String,
}

/// Keeps what it is told.
#[derive(Default)]
struct Kept {
    rows: Mutex<Vec<Row>>,
    no_tokens: bool,
}

impl Kept {
    fn one(&self) -> Row {
        let mut rows = std::mem::take(&mut *self.rows.lock().unwrap());
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows.remove(0)
    }

    fn is_empty(&self) -> bool {
        self.rows.lock().unwrap().is_empty()
    }
}

impl RequestSink for Kept {
    fn record(&self, record: &RequestRecord<'_>) {
        let row = Row {
            id: record.request_id.to_string(),
            route: record.route,
            method: record.method.to_string(),
            path: record.path.to_owned(),
            models: (record.model_asked.map(ToString::to_string), record.model_used.map(ToString::to_string)),
            tenant: record.tenant.map(|tenant| tenant.as_str().to_owned()),
            runner: record.runner.map(ToString::to_string),
            tries: record.tries,
            hedged: record.hedged,
            status: record.status,
            outcome: record.outcome,
            times: (record.queue_time, record.first_byte, record.duration),
            bytes: (record.bytes_in, record.bytes_out),
            tokens: (record.prompt_tokens, record.completion_tokens),
            age: record.time.elapsed().unwrap_or_default(),
            whole: format!("{record:?}"),
        };
        self.rows.lock().unwrap().push(row);
    }

    fn wants_tokens(&self) -> bool {
        !self.no_tokens
    }
}

fn kept() -> (Arc<Kept>, GatewayBuilder) {
    let kept = Arc::<Kept>::default();
    (kept.clone(), builder().request_sink(kept))
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15}}"#;

#[tokio::test(start_paused = true)]
async fn an_answer_is_told_with_all_that_is_known() {
    let kept = Arc::<Kept>::default();
    let identity = Identity::named("key-7").of_tenant(Tenant::new("team-a").unwrap());
    let gateway = Gateway::builder()
        .client_authenticator(BearerTokens::new([""; 0]).unwrap().with_identity(identity, "the-key").unwrap())
        .routes(ModelRoutes::builder().alias("gpt", "m").build().unwrap())
        .request_sink(kept.clone())
        .build()
        .unwrap();
    let link = Mock::new(|_| async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(json(200, USAGE))
    });
    let spec = RunnerSpec::new(RunnerId::new("r1").unwrap()).slots(1);
    join_with(&gateway, spec, RunnerStatus::serving([model("m")]), &link);
    let body = r#"{"model":"gpt","prompt":"my secret prompt"}"#;
    let mut request = with_key(post("/v1/chat/completions?key=query-secret", body), "the-key");
    request.headers_mut().insert("x-request-id", "abc".parse().unwrap());

    // The only slot is taken for five seconds.
    let held = gateway.dispatcher().registry().fleet().runners()[0].try_reserve().unwrap();
    let asked = gateway.clone();
    let answer = tokio::spawn(async move { send(&asked, request).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(held);
    let answer = answer.await.unwrap();
    assert!(kept.is_empty(), "its body has not been read");
    Whole::of(answer).await;

    let row = kept.one();
    assert_eq!((row.id.as_str(), row.route, row.method.as_str()), ("abc", "/v1/chat/completions", "POST"));
    assert_eq!(row.path, "/v1/chat/completions");
    assert_eq!(row.models, (some("gpt"), some("m")));
    assert_eq!((row.tenant.as_deref(), row.runner.as_deref()), (Some("team-a"), Some("r1")));
    assert_eq!((row.tries, row.hedged, row.status, row.outcome), (1, false, 200, "success"));
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
    assert_eq!((seconds(row.times.0), seconds(row.times.1), row.times.2.as_secs()), (Some(5), Some(7), 7));
    assert_eq!(row.bytes, (Some(body.len() as u64), USAGE.len() as u64));
    assert_eq!(row.tokens, (Some(12), Some(3)));
    assert!(row.age < Duration::from_secs(60), "{:?}", row.age);
    for secret in ["the-key", "secret prompt", "query-secret", "choices"] {
        assert!(!row.whole.contains(secret), "{}", row.whole);
    }
}

#[tokio::test]
async fn what_never_reached_a_runner_says_so_by_what_is_missing() {
    let (kept, builder) = kept();
    let gateway = builder.build().unwrap();
    whole(&gateway, with_key(chat(r#"{"model":"m"}"#), "wrong-key")).await;
    let row = kept.one();
    assert_eq!((row.status, row.outcome, row.tries), (401, "unauthorized", 0));
    assert_eq!((row.models, row.tenant, row.runner.clone()), ((None, None), None, None));
    assert_eq!((row.times.0, row.times.1, row.bytes.0, row.tokens), (None, None, None, (None, None)));
    assert!(row.bytes.1 > 0, "the error object went out");
    assert!(!row.whole.contains("wrong-key"));

    whole(&gateway, get("/nowhere/at?all=1")).await;
    let row = kept.one();
    assert_eq!((row.route, row.path.as_str(), row.outcome), ("other", "/nowhere/at", "not_found"));
    whole(&gateway, get("/health")).await;
    let row = kept.one();
    assert_eq!((row.route, row.status, row.outcome), ("/health", 200, "success"));
    whole(&gateway, chat(r#"{"model":"nope"}"#)).await;
    let row = kept.one();
    assert_eq!((row.models, row.outcome), ((some("nope"), None), "unknown_model"));
}

#[tokio::test]
async fn who_failed_last_is_told() {
    let (kept, builder) = kept();
    let gateway = builder.build().unwrap();
    let failing = Mock::new(|_| async { Err(LinkError::lost("reset by peer")) });
    join(&gateway, "gpu-7", &["m"], &failing);
    assert_eq!(whole(&gateway, chat(r#"{"model":"m"}"#)).await.status, 502);
    let row = kept.one();
    assert_eq!((row.runner.as_deref(), row.tries, row.outcome), (Some("gpu-7"), 1, "runner_failed"));
    assert_eq!((row.models, row.times.1), ((some("m"), None), None));
}

#[tokio::test]
async fn streams_are_told_at_their_end_with_their_tokens() {
    let event = Bytes::from(format!("data: {USAGE}\n\n"));
    for cut in [0, 1, 30, event.len() - 1] {
        let (kept, builder) = kept();
        let gateway = builder.build().unwrap();
        let (link, sender) = Mock::stream("text/event-stream");
        join(&gateway, "r1", &["m"], &link);
        for chunk in [event.slice(..cut), event.slice(cut..), Bytes::from_static(b"data: [DONE]\n\n")] {
            if !chunk.is_empty() {
                sender.try_send(Ok(chunk)).unwrap();
            }
        }
        drop(sender);
        Whole::of(send(&gateway, chat(r#"{"model":"m"}"#)).await).await;
        let row = kept.one();
        assert_eq!((row.outcome, row.tokens), ("success", (Some(12), Some(3))), "cut at {cut}");
        assert_eq!(row.bytes.1, event.len() as u64 + 14);
    }

    let (kept, builder) = kept();
    let gateway = builder.build().unwrap();
    let (link, sender) = Mock::stream("text/event-stream");
    join(&gateway, "r1", &["m"], &link);
    sender.try_send(Ok(Bytes::from_static(b"data: 1\n\n"))).unwrap();
    let mut response = send(&gateway, chat(r#"{"model":"m"}"#)).await;
    next_chunk(response.body_mut()).await.unwrap();
    assert!(kept.is_empty());
    drop(response);
    let row = kept.one();
    assert_eq!((row.outcome, row.status, row.bytes.1, row.tokens), ("cancelled", 200, 9, (None, None)));
}

#[tokio::test]
async fn nobody_looks_for_tokens_that_nobody_wants() {
    let kept = Arc::new(Kept { no_tokens: true, ..Kept::default() });
    let gateway = builder().request_sink(kept.clone()).build().unwrap();
    join(&gateway, "r1", &["m"], &Mock::new(|_| async { Ok(json(200, USAGE)) }));
    whole(&gateway, chat(r#"{"model":"m"}"#)).await;
    assert_eq!(kept.one().tokens, (None, None));
}

#[tokio::test]
async fn bodies_that_are_passed_on_are_counted_as_they_go() {
    let (kept, builder) = kept();
    let gateway = builder.generic(GenericRoute::prefix("/tasks")).build().unwrap();
    join(&gateway, "r1", &["m"], &Mock::ok());
    // With a length, kept; without one, passed on while it comes.
    let chunks = || vec![Bytes::from_static(b"one"), Bytes::from_static(b"three")];
    let whole_body = Full::new(Bytes::from_static(b"onethree")).boxed();
    let streamed = chunks().into_iter().map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    let streamed = StreamBody::new(futures_util::stream::iter(streamed)).boxed();
    for body in [whole_body, streamed] {
        let request = Request::put("/tasks/7?key=query-secret").body(body).unwrap();
        assert_eq!(whole(&gateway, as_client(request)).await.status, 200);
        let row = kept.one();
        assert_eq!((row.route, row.method.as_str(), row.path.as_str()), ("generic", "PUT", "/tasks/7"));
        assert_eq!((row.bytes.0, row.runner.as_deref()), (Some(8), Some("r1")));
        assert!(!row.whole.contains("query-secret"));
    }
    whole(&gateway, as_client(get("/tasks/7"))).await;
    assert_eq!(kept.one().bytes.0, Some(0), "it is known to have none");
}

/// Drops all it is told, and is flushed when it is let.
#[derive(Default)]
struct Slow {
    dropped: AtomicU64,
    flushed: AtomicU64,
    let_go: Notify,
}

impl RequestSink for Slow {
    fn record(&self, _: &RequestRecord<'_>) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn flush(&self) -> Decision<'_, ()> {
        Decision::later(async {
            self.let_go.notified().await;
            self.flushed.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_sinks_but_not_for_ever() {
    let (slow, quick) = (Arc::<Slow>::default(), Arc::<Slow>::default());
    let gateway = builder().request_sink(slow.clone()).request_sink(quick.clone()).build().unwrap();
    for _ in 0..3 {
        whole(&gateway, get("/health")).await;
    }
    let text = gateway.metrics_text();
    assert!(text.contains("gateway_request_log_dropped_total 6\n"), "{text}");

    quick.let_go.notify_one();
    let started = tokio::time::Instant::now();
    let drained = gateway.shutdown(Duration::ZERO).await;
    assert_eq!((drained.sinks_left, drained.is_clean()), (1, false));
    assert_eq!(started.elapsed(), Drained::SINKS_PATIENCE);
    assert_eq!(quick.flushed.load(Ordering::Relaxed), 1);
    slow.let_go.notify_one();
    quick.let_go.notify_one();
    assert!(gateway.shutdown(Duration::ZERO).await.is_clean());
}

#[test]
fn sinks_are_few_and_none_leaves_no_trace() {
    assert!(!builder().build().unwrap().metrics_text().contains("request_log"));
    let many =
        |count| (0..count).fold(builder(), |builder, _| builder.request_sink(Arc::<Kept>::default())).build();
    assert!(many(GatewayBuilder::MAX_SINKS).is_ok());
    assert_eq!(many(GatewayBuilder::MAX_SINKS + 1).unwrap_err(), BuildError::TooManySinks);
}
