//! What is counted, and that labels stay within bounds.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use gateway_core::{
    HedgePolicy, LeaveReason, LinkError, ModelRoutes, RoundRobin, RunnerId, RunnerSpec, RunnerStatus,
};
use gateway_http::Gateway;
use http::Request;
use http_body_util::{BodyExt, Full};
use tower_service::Service;

fn has(gateway: &Gateway, line: &str) {
    let text = gateway.metrics_text();
    assert!(text.lines().any(|other| other == line), "no line {line:?} in\n{text}");
}

fn has_not(gateway: &Gateway, part: &str) {
    let text = gateway.metrics_text();
    assert!(!text.contains(part), "{part:?} in\n{text}");
}

#[tokio::test]
async fn requests_are_counted_by_template_and_models_by_what_is_served() {
    let link = Mock::ok();
    let gateway = with_runner(&link);
    let body = r#"{"model":"m"}"#;
    for path in ["/v1/chat/completions", "/v1/chat/completions", "/v1/completions", "/v1/embeddings"] {
        assert_eq!(whole(&gateway, as_client(post(path, body))).await.status, 200);
    }
    for at in 0..3 {
        whole(&gateway, chat(format!(r#"{{"model":"invented-{at}"}}"#))).await;
        whole(&gateway, get(&format!("/invented/{at}"))).await;
        let method = format!("INVENTED{at}");
        let request = Request::builder().method(&*method).uri("/x").body(Full::<Bytes>::default()).unwrap();
        whole(&gateway, request).await;
        whole(&gateway, as_client(get(&format!("/v1/models/invented-{at}")))).await;
    }
    for line in [
        r#"gateway_requests_total{method="POST",endpoint="/v1/chat/completions",status="200"} 2"#,
        r#"gateway_requests_total{method="POST",endpoint="/v1/chat/completions",status="404"} 3"#,
        r#"gateway_requests_total{method="GET",endpoint="/v1/models/{id}",status="404"} 3"#,
        r#"gateway_requests_total{method="GET",endpoint="other",status="404"} 3"#,
        r#"gateway_requests_total{method="other",endpoint="other",status="404"} 3"#,
        r#"gateway_request_duration_seconds_count{endpoint="/v1/chat/completions"} 5"#,
        r#"inference_requests_total{model="m",type="chat"} 2"#,
        r#"inference_requests_total{model="m",type="completion"} 1"#,
        r#"inference_requests_total{model="m",type="embedding"} 1"#,
        r#"inference_requests_total{model="other",type="chat"} 3"#,
        "gateway_time_to_first_byte_seconds_count 4",
        "gateway_overhead_seconds_count 4",
        r#"gateway_refused_total{reason="unknown_model"} 6"#,
        r#"gateway_refused_total{reason="not_found"} 6"#,
        r#"gateway_outcomes_total{outcome="success"} 4"#,
        r#"gateway_runner_outcomes_total{runner="r1",outcome="success"} 4"#,
    ] {
        has(&gateway, line);
    }
    has_not(&gateway, "nvented");
    assert!(gateway.metrics_text().ends_with("# EOF\n"));
}

#[tokio::test]
async fn runners_are_read_from_the_fleet_and_go_with_it() {
    let (link, sender) = Mock::stream("text/event-stream");
    let gateway = builder().build().unwrap();
    let id = RunnerId::new(r#"odd "id""#).unwrap();
    let key = join_with(&gateway, RunnerSpec::new(id).slots(8), RunnerStatus::serving([model("m")]), &link);
    join(&gateway, "unsized", &["n"], &Mock::ok());
    sender.try_send(Ok(Bytes::from_static(b"data: 1\n\n"))).unwrap();
    let body = send(&gateway, chat(r#"{"model":"m"}"#)).await.into_body();
    for line in [
        "gateway_requests_in_flight 1",
        r#"gateway_runner_in_flight{runner="odd \"id\""} 1"#,
        r#"gateway_runner_in_flight{runner="unsized"} 0"#,
        r#"gateway_runner_slots{runner="odd \"id\""} 8"#,
        r#"gateway_runner_health{runner="unsized",health="healthy"} 1"#,
        r#"gateway_runner_health{runner="unsized",health="unhealthy"} 0"#,
        r#"gateway_runner_standing{runner="unsized",standing="good"} 1"#,
    ] {
        has(&gateway, line);
    }
    // What is not known is not zero.
    has_not(&gateway, r#"gateway_runner_slots{runner="unsized"}"#);
    has_not(&gateway, r#"gateway_runner_foreign_requests{"#);

    drop(body);
    has(&gateway, "gateway_requests_in_flight 0");
    has(&gateway, r#"gateway_runner_outcomes_total{runner="odd \"id\"",outcome="cancelled"} 1"#);
    has(&gateway, r#"gateway_requests_total{method="POST",endpoint="/v1/chat/completions",status="200"} 1"#);
    gateway.dispatcher().registry().leave(&key, LeaveReason::Disconnected);
    has_not(&gateway, "odd");
    has(&gateway, r#"gateway_outcomes_total{outcome="cancelled"} 1"#);
    join(&gateway, r#"odd "id""#, &["m"], &Mock::ok());
    has(&gateway, r#"gateway_runner_in_flight{runner="odd \"id\""} 0"#);
    // Each registration counts for itself.
    has_not(&gateway, r#"gateway_runner_outcomes_total{"#);
}

#[tokio::test]
async fn failures_and_clients_that_leave_are_counted() {
    let failing = Mock::new(|_| async { Err(LinkError::lost("gone")) });
    let gateway = with_runner(&failing);
    assert_eq!(whole(&gateway, chat(r#"{"model":"m"}"#)).await.status, 502);
    has(&gateway, r#"gateway_refused_total{reason="runner_failed"} 1"#);
    has(&gateway, r#"gateway_outcomes_total{outcome="runner_fault_connection"} 1"#);
    // The time of a failed try is not the gateway's own.
    has(&gateway, "gateway_overhead_seconds_count 0");

    let silent = Mock::new(|_| std::future::pending());
    let gateway = with_runner(&silent);
    {
        let mut waiting = std::pin::pin!(send(&gateway, chat(r#"{"model":"m"}"#)));
        must_wait(waiting.as_mut()).await;
        has(&gateway, "gateway_requests_in_flight 1");
    }
    has(&gateway, r#"gateway_requests_total{method="POST",endpoint="/v1/chat/completions",status="499"} 1"#);
    has(&gateway, "gateway_requests_in_flight 0");
}

#[tokio::test(start_paused = true)]
async fn what_did_not_go_the_straight_way_is_counted() {
    let routes = ModelRoutes::builder().fallback("m", ["n"]).build().unwrap();
    let hedge = HedgePolicy { ratio: 1.0, ..HedgePolicy::after(Duration::from_secs(1)) };
    let gateway = builder().routes(routes).hedge(hedge).strategy(RoundRobin::default()).build().unwrap();
    let failing = Mock::new(|_| async { Err(LinkError::lost("gone")) });
    let slow = Mock::new(|_| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok(json(200, "{}"))
    });
    let ask = async |model: &str, status: u16| {
        assert_eq!(whole(&gateway, chat(format!(r#"{{"model":"{model}"}}"#))).await.status, status);
    };
    join(&gateway, "f1", &["failing"], &failing);
    join(&gateway, "f2", &["failing"], &failing);
    ask("failing", 502).await;
    has(&gateway, "gateway_retries_total 1");
    has(&gateway, "gateway_hedges_total 0");

    join(&gateway, "n", &["n"], &Mock::ok());
    ask("m", 200).await;
    has(&gateway, "gateway_fallbacks_total 1");

    join(&gateway, "s1", &["slow"], &slow);
    join(&gateway, "s2", &["slow"], &slow);
    ask("slow", 200).await;
    has(&gateway, "gateway_hedges_total 1");
    has(&gateway, "gateway_retries_total 1");
}

#[tokio::test]
async fn a_host_s_registry_gets_the_same_and_outlives_the_gateway() {
    let mut registry = prometheus_client::registry::Registry::with_prefix("host");
    let gateway = builder().metrics_registry(&mut registry).build().unwrap();
    join(&gateway, "r1", &["m"], &Mock::ok());
    whole(&gateway, chat(r#"{"model":"m"}"#)).await;
    let text = |registry: &_| {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    };
    let line = r#"host_inference_requests_total{model="m",type="chat"} 1"#;
    assert!(text(&registry).contains(line));
    assert!(text(&registry).contains("host_gateway_runner_in_flight"));
    drop(gateway);
    assert!(text(&registry).contains(line));
    assert!(!text(&registry).contains("host_gateway_runner_in_flight"));
}

#[tokio::test]
async fn observability_is_a_service_without_authentication() {
    let gateway = builder().build().unwrap();
    let mut service = gateway.observability();
    let mut ask = async |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let response = service.call(request).await.unwrap_or_else(|never| match never {});
        let (head, body) = response.into_parts();
        (head.status.as_u16(), head.headers, body.collect().await.unwrap().to_bytes())
    };
    let (status, headers, body) = ask("GET", "/metrics").await;
    assert_eq!(status, 200);
    assert!(headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    assert_eq!(body, gateway.metrics_text());
    assert_eq!(ask("GET", "/health").await.0, 200);
    assert_eq!(ask("GET", "/readyz").await.0, 503);
    join(&gateway, "r1", &["m"], &Mock::ok());
    assert_eq!(ask("GET", "/readyz").await.0, 200);
    assert_eq!(ask("POST", "/metrics").await.0, 405);
    assert_eq!(ask("GET", "/v1/models").await.0, 404);
    // Scrapes and probes are no requests of clients.
    has_not(&gateway, "gateway_requests_total{");
}
