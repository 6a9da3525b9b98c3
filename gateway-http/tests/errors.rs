//! Each failure has its status, type and code; what it says names no machine.

mod common;

use std::time::Duration;

use common::*;
use gateway_core::{
    Deadlines, Health, LifecyclePolicy, LinkError, Model, ModelState, QueuePolicy, RetryPolicy, RunnerId,
    RunnerSpec, RunnerStatus,
};
use gateway_http::Gateway;

/// Checks one failure; `retry_after` in seconds.
async fn check(
    gateway: &Gateway,
    status: u16,
    kind: &str,
    code: Option<&str>,
    param: Option<&str>,
    retry_after: Option<&str>,
) {
    let answer = whole(gateway, chat(r#"{"model":"m"}"#)).await;
    assert_eq!(answer.status, status, "{answer:?}");
    let (got_kind, got_code, got_param) = answer.error();
    assert_eq!((&*got_kind, got_code.as_deref(), got_param.as_deref()), (kind, code, param));
    assert_eq!(answer.header("retry-after"), retry_after);
    // The connection is as good as before.
    assert_eq!(answer.header("connection"), None);
    let text = String::from_utf8_lossy(&answer.body);
    assert!(!text.contains("secret-host") && !text.contains("192.0.2.7"), "{text}");
}

fn spec() -> RunnerSpec {
    RunnerSpec::new(RunnerId::new("secret-host").unwrap())
}

fn gateway_with(status: RunnerStatus, spec: RunnerSpec, link: &std::sync::Arc<Mock>) -> Gateway {
    let gateway = builder().build().unwrap();
    join_with(&gateway, spec, status, link);
    gateway
}

#[tokio::test]
async fn a_model_that_nobody_has_is_404() {
    let gateway = builder().build().unwrap();
    check(&gateway, 404, "invalid_request_error", Some("model_not_found"), Some("model"), None).await;
}

#[tokio::test]
async fn a_model_that_is_not_ready_is_503_and_the_reason_is_for_the_log_only() {
    let models = vec![Model::new(model("m"), ModelState::Available)];
    let gateway = builder().lifecycle(LifecyclePolicy::off()).build().unwrap();
    join_with(&gateway, spec(), RunnerStatus { models, ..RunnerStatus::serving([]) }, &Mock::ok());
    check(&gateway, 503, "server_error", Some("no_runner_available"), None, Some("5")).await;

    let status = RunnerStatus { health: Health::Unhealthy, ..RunnerStatus::serving([model("m")]) };
    let gateway = gateway_with(status, spec(), &Mock::ok());
    check(&gateway, 503, "server_error", Some("no_runner_available"), None, Some("5")).await;
}

#[tokio::test]
async fn clients_are_told_how_many_runners_refuse_and_why_but_not_which() {
    let gateway = builder().lifecycle(LifecyclePolicy::off()).build().unwrap();
    let available = vec![Model::new(model("m"), ModelState::Available)];
    for id in ["secret-host-1", "secret-host-2"] {
        let spec = RunnerSpec::new(RunnerId::new(id).unwrap());
        let status = RunnerStatus { models: available.clone(), ..RunnerStatus::serving([]) };
        join_with(&gateway, spec, status, &Mock::ok());
    }
    let status = RunnerStatus { health: Health::Unhealthy, ..RunnerStatus::serving([model("m")]) };
    join_with(&gateway, spec(), status, &Mock::ok());
    let answer = whole(&gateway, chat(r#"{"model":"m"}"#)).await;
    assert_eq!(
        answer.json()["error"]["message"],
        "No runner can serve the model `m` at the moment: 2 without it loaded, 1 not healthy. Try again later."
    );
}

#[tokio::test]
async fn full_runners_are_429() {
    let gateway = builder().queue(QueuePolicy::OFF).build().unwrap();
    join_with(&gateway, spec().slots(1), RunnerStatus::serving([model("m")]), &Mock::ok());
    let taken = gateway.dispatcher().registry().fleet().runners()[0].try_reserve();
    check(&gateway, 429, "overloaded_error", Some("overloaded"), None, Some("5")).await;
    drop(taken);
    assert_eq!(whole(&gateway, chat(r#"{"model":"m"}"#)).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_429_and_a_wait_in_vain_503_each_with_retry_after() {
    let one = QueuePolicy { max_waiting: 1, ..QueuePolicy::default() };
    let gateway = builder().queue(one).build().unwrap();
    join_with(&gateway, spec().slots(1), RunnerStatus::serving([model("m")]), &Mock::ok());
    let taken = gateway.dispatcher().registry().fleet().runners()[0].try_reserve();
    let waiting = tokio::spawn({
        let gateway = gateway.clone();
        async move { whole(&gateway, chat(r#"{"model":"m"}"#)).await }
    });
    while gateway.dispatcher().queue_depth() == 0 {
        tokio::task::yield_now().await;
    }
    let refused = whole(&gateway, chat(r#"{"model":"m"}"#)).await;
    assert_eq!((refused.status, refused.error().1.as_deref()), (429, Some("queue_full")));
    assert!(refused.header("retry-after").is_some());
    let in_vain = waiting.await.unwrap();
    assert_eq!((in_vain.status, in_vain.error().1.as_deref()), (503, Some("queue_timeout")));
    assert!(in_vain.header("retry-after").is_some());
    drop(taken);
    assert_eq!(whole(&gateway, chat(r#"{"model":"m"}"#)).await.status, 200);
}

#[tokio::test]
async fn a_runner_that_fails_is_502_and_named_in_the_header_only() {
    let link = Mock::new(|_| async { Err(LinkError::lost("reset by 192.0.2.7")) });
    let gateway = gateway_with(RunnerStatus::serving([model("m")]), spec(), &link);
    check(&gateway, 502, "upstream_error", Some("upstream_failed"), None, None).await;
    let answer = whole(&gateway, chat(r#"{"model":"m"}"#)).await;
    assert_eq!(answer.header("x-backend-used"), Some("secret-host"));
}

#[tokio::test]
async fn a_runner_that_cannot_be_reached_is_502_with_retry_after() {
    let link = Mock::new(|_| async { Err(LinkError::not_sent("no route to 192.0.2.7")) });
    let gateway = gateway_with(RunnerStatus::serving([model("m")]), spec(), &link);
    check(&gateway, 502, "upstream_error", Some("upstream_unreachable"), None, Some("1")).await;
}

#[tokio::test(start_paused = true)]
async fn running_out_of_time_is_504() {
    let silent = Mock::new(|_| std::future::pending());
    let second = Some(Duration::from_secs(1));
    for (deadlines, code) in [
        (Deadlines { first_byte: second, ..Deadlines::default() }, "upstream_timeout"),
        (Deadlines { total: second, ..Deadlines::default() }, "deadline_exceeded"),
    ] {
        let gateway = builder().deadlines(deadlines).build().unwrap();
        join(&gateway, "secret-host", &["m"], &silent);
        check(&gateway, 504, "upstream_error", Some(code), None, None).await;
    }
}

#[tokio::test]
async fn a_runner_s_own_error_passes_as_it_is() {
    let link = Mock::new(|_| async {
        let mut response = json(429, r#"{"error":{"message":"slow down","mine":1}}"#);
        response.headers_mut().insert("retry-after", http::HeaderValue::from_static("17"));
        Ok(response)
    });
    let gateway = with_runner(&link);
    let answer = whole(&gateway, chat(r#"{"model":"m"}"#)).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("17")));
    assert_eq!(&answer.body[..], br#"{"error":{"message":"slow down","mine":1}}"#);
}

#[tokio::test]
async fn what_the_retry_policy_allows_is_tried_elsewhere() {
    let gateway = builder().retry(RetryPolicy { max_failures: 2, ..RetryPolicy::default() }).build().unwrap();
    let bad = Mock::new(|_| async { Err(LinkError::lost("gone")) });
    for id in ["r1", "r2", "r3"] {
        join(&gateway, id, &["m"], &bad);
    }
    check(&gateway, 502, "upstream_error", Some("upstream_failed"), None, None).await;
    assert_eq!(bad.seen.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_no_request_for_a_model_is_400_and_reaches_no_runner() {
    let link = Mock::ok();
    let gateway = with_runner(&link);
    for (body, param) in [
        ("", None),
        ("{", None),
        ("[1]", None),
        ("{}", Some("model")),
        (r#"{"model":7}"#, Some("model")),
        (r#"{"model":""}"#, Some("model")),
        (r#"{"model":"a\u0000b"}"#, Some("model")),
        (r#"{"model":"m","model":"n"}"#, Some("model")),
    ] {
        let answer = whole(&gateway, chat(body)).await;
        assert_eq!(answer.status, 400, "{body}");
        let (kind, code, got) = answer.error();
        assert_eq!((&*kind, code, got.as_deref()), ("invalid_request_error", None, param), "{body}");
    }
    let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(600));
    assert_eq!(whole(&gateway, chat(long)).await.status, 400);
    assert!(link.seen.lock().unwrap().is_empty());
}
