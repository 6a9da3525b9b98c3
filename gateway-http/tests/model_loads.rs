//! A model that is on a runner's disk is loaded for a request; what clients and metrics are told of it.

mod common;

use common::*;
use gateway_core::{CommandReply, Health, Model, ModelState, RunnerId, RunnerSpec, RunnerStatus};
use gateway_http::Gateway;

fn has(gateway: &Gateway, line: &str) {
    let text = gateway.metrics_text();
    assert!(text.lines().any(|other| other == line), "no line {line:?} in\n{text}");
}

#[tokio::test(start_paused = true)]
async fn a_load_that_fails_is_told_and_counted_and_so_is_one_that_succeeds() {
    let gateway = builder().build().unwrap();
    let link = Mock::ok();
    let models = ["m", "other"].map(|name| Model::new(model(name), ModelState::Available));
    let status = RunnerStatus { health: Health::Healthy, models: models.into(), ..RunnerStatus::default() };
    join_with(&gateway, RunnerSpec::new(RunnerId::new("gpu-7").unwrap()), status, &link);
    has(&gateway, r#"gateway_models{state="available"} 2"#);
    has(&gateway, r#"gateway_model_loads_total{outcome="loaded"} 0"#);

    let refused = CommandReply { result: Err("out of memory".to_owned()), status: None };
    link.replies.lock().unwrap().push_back(Ok(refused));
    let answer = whole(&gateway, chat(r#"{"model":"m"}"#)).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.error(), ("server_error".to_owned(), Some("model_load_failed".to_owned()), None));
    assert!(answer.header("retry-after").is_some_and(|wait| wait.parse::<u64>().is_ok_and(|wait| wait > 0)));
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(
        !text.contains("gpu-7") && !text.contains("out of memory"),
        "which machine is not for clients: {text}"
    );
    has(&gateway, r#"gateway_refused_total{reason="model_not_loaded"} 1"#);
    has(&gateway, r#"gateway_model_loads_total{outcome="refused"} 1"#);
    has(&gateway, "gateway_model_load_seconds_count 0");
    has(&gateway, r#"gateway_models{state="failed"} 1"#);
    assert!(link.seen.lock().unwrap().is_empty(), "nothing was sent to it");

    link.replies.lock().unwrap().push_back(Ok(CommandReply { result: Ok(()), status: None }));
    assert_eq!(whole(&gateway, chat(r#"{"model":"other"}"#)).await.status, 200);
    has(&gateway, r#"gateway_model_loads_total{outcome="loaded"} 1"#);
    has(&gateway, "gateway_model_load_seconds_count 1");
    has(&gateway, r#"gateway_models{state="loaded"} 1"#);
    has(&gateway, r#"gateway_models{state="available"} 0"#);
}
