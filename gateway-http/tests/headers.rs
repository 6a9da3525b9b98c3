//! What passes to the runner and back, and what the gateway adds.

mod common;

use common::*;
use gateway_core::{LinkError, RoundRobin};
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
    assert!(reasons.contains(&"round-robin; retried".to_owned()), "{reasons:?}");
}
