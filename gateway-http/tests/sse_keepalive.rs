//! While a first token is awaited, an event stream says now and then that it is alive, if that is switched on.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use gateway_core::{Deadlines, LinkError, LinkResponse, RunnerId, RunnerSpec, RunnerStatus};
use gateway_http::{BuildError, Gateway, GatewayBuilder};
use http::HeaderValue;
use tokio::time::{Instant, sleep};

const STREAMED: &str = r#"{"model":"m","stream":true}"#;
const COMMENT: &str = ": waiting\n\n";
const EVERY: Duration = Duration::from_secs(10);

/// A runner that answers after a while.
fn after(
    wait: u64,
    answer: impl Fn() -> Result<LinkResponse, LinkError> + Send + Sync + 'static,
) -> Arc<Mock> {
    let answer = Arc::new(answer);
    Mock::new(move |_| {
        let answer = answer.clone();
        async move {
            sleep(Duration::from_secs(wait)).await;
            answer()
        }
    })
}

fn sse(body: &'static str) -> Result<LinkResponse, LinkError> {
    let mut response = json(200, body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

fn gateway(link: &Arc<Mock>) -> Gateway {
    with(builder().sse_keepalive(EVERY), link)
}

fn with(builder: GatewayBuilder, link: &Arc<Mock>) -> Gateway {
    let gateway = builder.build().unwrap();
    join(&gateway, "r1", &["m"], link);
    gateway
}

fn text(answer: &Whole) -> &str {
    std::str::from_utf8(&answer.body).unwrap()
}

/// What is left of an answer after its comments, and how many there were.
fn comments(answer: &Whole) -> (usize, &str) {
    let mut rest = text(answer);
    let mut count = 0;
    while let Some(next) = rest.strip_prefix(COMMENT) {
        (count, rest) = (count + 1, next);
    }
    (count, rest)
}

fn metric(gateway: &Gateway, line: &str) {
    let text = gateway.metrics_text();
    assert!(text.lines().any(|other| other == line), "no line {line:?} in\n{text}");
}

#[tokio::test(start_paused = true)]
async fn comments_come_until_the_first_token_does() {
    let link = after(35, || sse("data: 1\n\ndata: [DONE]\n\n"));
    let gateway = gateway(&link);
    let started = Instant::now();
    let response = send(&gateway, chat(STREAMED)).await;
    assert_eq!(started.elapsed(), EVERY, "not begun before that");
    assert_eq!(response.status(), 200);
    for (name, value) in
        [("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")]
    {
        assert_eq!(response.headers()[name], value);
    }
    assert!(response.headers().contains_key("x-request-id"));
    let mut body = response.into_body();
    for seconds in [10, 20, 30] {
        assert_eq!(next_chunk(&mut body).await.unwrap(), COMMENT);
        assert_eq!(started.elapsed().as_secs(), seconds);
    }
    assert_eq!(next_chunk(&mut body).await.unwrap(), "data: 1\n\ndata: [DONE]\n\n");
    assert_eq!(started.elapsed().as_secs(), 35);
    assert!(next_chunk(&mut body).await.is_none());
    assert_eq!(gateway.dispatcher().in_flight(), 0);
    metric(&gateway, "gateway_time_to_first_byte_seconds_count 1");
    metric(&gateway, "gateway_time_to_first_byte_seconds_sum 35.0");
    metric(
        &gateway,
        r#"gateway_requests_total{method="POST",endpoint="/v1/chat/completions",status="200"} 1"#,
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_is_as_it_would_be_without() {
    let link = after(9, || sse("data: 1\n\n"));
    let gateway = gateway(&link);
    let answer = whole(&gateway, chat(STREAMED)).await;
    assert_eq!(text(&answer), "data: 1\n\n");
    assert_eq!(answer.header("x-backend-used"), Some("r1"));
    let link = after(9, || Ok(json(418, "{}")));
    let answer = whole(&with(builder().sse_keepalive(EVERY), &link), chat(STREAMED)).await;
    assert_eq!((answer.status, text(&answer)), (418, "{}"));
    let gateway = builder().sse_keepalive(EVERY).build().unwrap();
    assert_eq!(whole(&gateway, chat(STREAMED)).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn only_streams_and_only_if_it_is_switched_on() {
    let link = after(60, || Ok(json(200, "{}")));
    for body in [r#"{"model":"m"}"#, r#"{"model":"m","stream":false}"#, r#"{"model":"m","stream":"true"}"#] {
        let answer = whole(&gateway(&link), chat(body)).await;
        assert_eq!((text(&answer), answer.header("content-type")), ("{}", Some("application/json")));
    }
    // No engine streams vectors.
    let request = as_client(post("/v1/embeddings", STREAMED));
    assert_eq!(text(&whole(&gateway(&link), request).await), "{}");
    let answer = whole(&with(builder(), &link), chat(STREAMED)).await;
    assert_eq!(text(&answer), "{}");
}

#[tokio::test(start_paused = true)]
async fn failures_after_the_beginning_are_told_as_events() {
    let link = after(15, || Err(LinkError::lost("reset by secret-host")));
    let gateway_1 = gateway(&link);
    let answer = whole(&gateway_1, chat(STREAMED)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        text(&answer),
        ": waiting\n\ndata: {\"error\":{\"message\":\"The runner failed before it began to answer. Try again.\",\
         \"type\":\"upstream_error\",\"param\":null,\"code\":\"upstream_failed\"}}\n\ndata: [DONE]\n\n"
    );
    metric(&gateway_1, r#"gateway_refused_total{reason="runner_failed"} 1"#);

    // It is tried elsewhere all the same.
    let other = after(7, || sse("data: 2\n\ndata: [DONE]\n\n"));
    let first = after(15, || Err(LinkError::lost("gone")));
    let both = builder().sse_keepalive(EVERY).strategy(gateway_core::RoundRobin::default()).build().unwrap();
    join(&both, "a", &["m"], &first);
    join(&both, "b", &["m"], &other);
    let mut most = 0;
    for _ in 0..2 {
        let answer = whole(&both, chat(STREAMED)).await;
        let (count, rest) = comments(&answer);
        assert_eq!(rest, "data: 2\n\ndata: [DONE]\n\n");
        most = most.max(count);
    }
    assert_eq!(most, 2, "after 10 and 20 of 22 seconds");
}

#[tokio::test(start_paused = true)]
async fn a_runner_s_own_error_comes_in_its_own_words_if_they_are_an_error_object() {
    let own = "{\n  \"error\": {\"message\": \"too long\\n\", \"mine\": 1}\n}";
    for (status, body, expected) in [
        (400, own, r#"{"error":{"message":"too long\n","mine":1}}"#),
        (400, "<html>", "The runner answered with the status 400."),
        (500, "{}", "The runner answered with the status 500."),
        (200, own, "The runner's answer is no event stream."),
    ] {
        let link = after(15, move || Ok(json(status, body)));
        let gateway = gateway(&link);
        let answer = whole(&gateway, chat(STREAMED)).await;
        assert_eq!(answer.status, 200);
        let (count, rest) = comments(&answer);
        assert_eq!(count, 1);
        let data = rest.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\ndata: [DONE]\n\n"));
        let data = data.unwrap_or_else(|| panic!("{rest:?}"));
        assert!(!data.contains('\n') && data.contains(expected), "{data}");
        let json: serde_json::Value = serde_json::from_str(data).unwrap();
        assert!(json["error"]["message"].is_string());
        assert_eq!(gateway.dispatcher().in_flight(), 0);
        metric(&gateway, "gateway_time_to_first_byte_seconds_count 1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_in_an_encoding_that_was_not_announced_is_no_stream() {
    let link = after(15, || {
        let mut response = sse("\u{1f}\u{8b}")?;
        response.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
        Ok(response)
    });
    let answer = whole(&gateway(&link), chat(STREAMED)).await;
    assert!(text(&answer).contains("no event stream"), "{}", text(&answer));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_off_is_told_as_ever() {
    let (link, sender) = Mock::stream("text/event-stream");
    let gateway = gateway(&link);
    let response = send(&gateway, chat(STREAMED)).await;
    sender.try_send(Ok(Bytes::from_static(b"data: 1\n\nda"))).unwrap();
    sender.try_send(Err(LinkError::lost("killed"))).unwrap();
    let answer = Whole::of(response).await;
    let (count, rest) = comments(&answer);
    assert_eq!(count, 0, "the token was there before the first comment was read");
    assert!(
        rest.starts_with("data: 1\n\nda\n\ndata: {\"error\"") && rest.ends_with("data: [DONE]\n\n"),
        "{rest}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_time_for_the_whole_request_ends_the_waiting() {
    let link = Mock::new(|_| std::future::pending());
    let deadlines = Deadlines { total: Some(Duration::from_secs(25)), ..Deadlines::default() };
    let gateway = with(builder().sse_keepalive(EVERY).deadlines(deadlines), &link);
    let started = Instant::now();
    let answer = whole(&gateway, chat(STREAMED)).await;
    let (count, rest) = comments(&answer);
    assert_eq!((count, started.elapsed().as_secs()), (2, 25));
    assert!(rest.contains("deadline_exceeded") && rest.ends_with("data: [DONE]\n\n"), "{rest}");
}

/// Says when it is dropped.
struct Guard(tokio::sync::mpsc::UnboundedSender<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_cancels_the_work_before_and_after_the_beginning() {
    let (dropped, mut told) = tokio::sync::mpsc::unbounded_channel();
    let link = Mock::new(move |_| {
        let guard = Guard(dropped.clone());
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    });
    let gateway = builder().sse_keepalive(EVERY).build().unwrap();
    let spec = RunnerSpec::new(RunnerId::new("r1").unwrap()).slots(1);
    join_with(&gateway, spec, RunnerStatus::serving([model("m")]), &link);
    let free = || gateway.dispatcher().registry().fleet().runners()[0].load().in_flight == 0;
    {
        let mut waiting = std::pin::pin!(send(&gateway, chat(STREAMED)));
        must_wait(waiting.as_mut()).await;
        assert!(!free());
    }
    assert!(told.try_recv().is_ok() && free());

    let mut body = send(&gateway, chat(STREAMED)).await.into_body();
    assert_eq!(next_chunk(&mut body).await.unwrap(), COMMENT);
    assert!(told.try_recv().is_err() && !free());
    assert_eq!(gateway.dispatcher().in_flight(), 1);
    drop(body);
    assert!(told.try_recv().is_ok() && free());
    assert_eq!(gateway.dispatcher().in_flight(), 0);
}

#[test]
fn too_short_a_time_is_a_mistake() {
    let short = builder().sse_keepalive(Duration::from_millis(99)).build();
    assert_eq!(short.unwrap_err(), BuildError::KeepaliveTooShort);
    assert!(builder().sse_keepalive(GatewayBuilder::MIN_SSE_KEEPALIVE).build().is_ok());
}
