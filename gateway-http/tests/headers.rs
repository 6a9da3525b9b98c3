//! What passes to the runner and back, and what the gateway adds.

mod common;

use common::*;
use gateway_core::{
    Balancer, Candidates, LinkError, ModelRoutes, QueuePolicy, Requirements, Reservation, RoundRobin,
    RunnerId, RunnerSpec, RunnerStatus,
};
use http::{HeaderName, HeaderValue};

#[tokio::test]
async fn credentials_and_hop_by_hop_headers_stay_here_and_the_rest_passes() {
    let link = Mock::ok();
    let gateway = with_runner(&link);
    let mut request = chat(r#"{"model":"m"}"#);
    for (name, value) in [
        ("host", "gateway"),
        ("content-length", "13"),
        ("x-api-key", "other"),
        ("cookie", "session=1"),
        ("expect", "100-continue"),
        ("proxy-authorization", "Basic x"),
        ("connection", "keep-alive, x-drop-me"),
        ("x-drop-me", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("accept-encoding", "gzip, br"),
        ("content-type", "application/json"),
        ("accept", "text/event-stream"),
        ("openai-organization", "org-1"),
        ("x-request-id", "mine"),
        ("traceparent", "00-1-2-01"),
    ] {
        request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    assert_eq!(whole(&gateway, request).await.status, 200);
    let seen = link.last().headers;
    let mut names: Vec<_> = seen.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let expected = ["accept", "content-type", "openai-organization", "traceparent", "x-request-id"];
    assert_eq!(names, expected);
    assert_eq!(seen["x-request-id"], "mine");
}

#[tokio::test]
async fn the_answer_says_who_gave_it_and_why() {
    let link = Mock::new(|_| async {
        let mut response = json(200, "{}");
        for (name, value) in [
            ("connection", "close, x-internal"),
            ("x-internal", "1"),
            ("keep-alive", "1"),
            ("openai-processing-ms", "7"),
            ("x-request-id", "the runner's own"),
        ] {
            response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        *response.version_mut() = http::Version::HTTP_10;
        response.extensions_mut().insert(7_u32);
        Ok(response)
    });
    let gateway = with_runner(&link);
    let answer = whole(&gateway, chat(r#"{"model":"m"}"#)).await;
    for (name, value) in [
        ("x-backend-used", Some("r1")),
        ("x-model-used", Some("m")),
        ("x-router-reason", Some("least-loaded")),
        ("openai-processing-ms", Some("7")),
        ("connection", None),
        ("keep-alive", None),
        ("x-internal", None),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(answer.header("x-request-id").unwrap().starts_with("req_"));

    // How the runner was spoken to says nothing about how the client is.
    let answer = send(&gateway, chat(r#"{"model":"m"}"#)).await;
    assert_eq!((answer.version(), answer.extensions().len()), (http::Version::HTTP_11, 0));
}

#[tokio::test]
async fn a_retry_is_told() {
    let gateway = builder().strategy(RoundRobin::default()).build().unwrap();
    join(&gateway, "bad", &["m"], &Mock::new(|_| async { Err(LinkError::lost("gone")) }));
    join(&gateway, "good", &["m"], &Mock::ok());
    let mut reasons = Vec::new();
    for _ in 0..2 {
        let answer = whole(&gateway, chat(r#"{"model":"m"}"#)).await;
        assert_eq!((answer.status, answer.header("x-backend-used")), (200, Some("good")));
        reasons.push(answer.header("x-router-reason").unwrap().to_owned());
    }
    reasons.sort_unstable();
    assert!(reasons.contains(&"round-robin; tries=2".to_owned()), "{reasons:?}");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_stands_for_another_model_is_told_and_so_is_a_fallback() {
    let routes = ModelRoutes::builder().alias("gpt", "m").fallback("m", ["n"]).build().unwrap();
    let gateway = builder().routes(routes).queue(QueuePolicy::OFF).build().unwrap();
    let (first, second) = (Mock::ok(), Mock::ok());
    let spec = RunnerSpec::new(RunnerId::new("r1").unwrap()).slots(1);
    join_with(&gateway, spec, RunnerStatus::serving([model("m")]), &first);
    join(&gateway, "r2", &["n"], &second);
    let answer = whole(&gateway, chat(r#"{"model":"gpt"}"#)).await;
    assert_eq!(answer.header("x-model-used"), Some("m"));
    assert_eq!(answer.header("x-router-reason"), Some("least-loaded"));
    assert_eq!(&first.last().body[..], br#"{"model":"m"}"#);

    let _taken = gateway.dispatcher().registry().fleet().runner("r1").unwrap().try_reserve();
    let answer = whole(&gateway, chat(r#"{"model":"gpt"}"#)).await;
    assert_eq!((answer.header("x-model-used"), answer.header("x-backend-used")), (Some("n"), Some("r2")));
    assert_eq!(answer.header("x-router-reason"), Some("least-loaded; fallback"));
    assert_eq!(&second.last().body[..], br#"{"model":"n"}"#);
    // Names of the configuration have their place in metrics, like those of the fleet.
    assert!(gateway.metrics_text().contains(r#"inference_requests_total{model="gpt",type="chat"} 2"#));
}

/// Gives its reason in turn.
struct Because;

impl Balancer for Because {
    fn name(&self) -> &'static str {
        "mine"
    }

    fn pick(&self, requirements: &Requirements, candidates: &Candidates<'_>) -> Option<Reservation> {
        let reservation = (0..candidates.len()).find_map(|at| candidates.try_reserve(at))?;
        Some(match requirements.workload.max_tokens {
            Some(1) => reservation.because("prefix"),
            Some(2) => reservation.because("session"),
            _ => reservation,
        })
    }
}

#[tokio::test]
async fn the_strategy_s_own_reason_is_told() {
    let gateway = builder().strategy(Because).build().unwrap();
    join(&gateway, "r1", &["m"], &Mock::ok());
    for _ in 0..2 {
        for (tokens, reason) in [(0, "mine"), (1, "mine; because=prefix"), (2, "mine; because=session")] {
            let answer = whole(&gateway, chat(format!(r#"{{"model":"m","max_tokens":{tokens}}}"#))).await;
            assert_eq!(answer.header("x-router-reason"), Some(reason));
        }
    }
}
