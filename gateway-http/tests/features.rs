//! What a request asks of the API decides which runners it may go to, and a client is told which field none can do.

mod common;

use common::*;
use gateway_core::{Feature, Features, Health, RunnerId, RunnerSpec, RunnerStatus};
use gateway_http::Gateway;

const TOOLS: &str = r#"{"model":"m","tools":[{"type":"function","function":{"name":"f"}}]}"#;
const PLAIN: &str = r#"{"model":"m","messages":[{"role":"user","content":"Hello"}]}"#;

fn spec(id: &str) -> RunnerSpec {
    RunnerSpec::new(RunnerId::new(id).unwrap())
}

fn status() -> RunnerStatus {
    RunnerStatus::serving([model("m")])
}

/// One runner that takes text and nothing else.
fn text_only() -> Gateway {
    let gateway = builder().build().unwrap();
    join_with(&gateway, spec("secret-host").lacks(Features::ALL), status(), &Mock::ok());
    gateway
}

#[tokio::test]
async fn a_request_goes_to_a_runner_that_can_and_its_bytes_stay() {
    let gateway = text_only();
    let able = Mock::ok();
    join_with(&gateway, spec("able"), status(), &able);
    for _ in 0..8 {
        let answer = whole(&gateway, chat(TOOLS)).await;
        assert_eq!((answer.status, answer.header("x-backend-used")), (200, Some("able")));
        assert_eq!(able.last().body, TOOLS);
    }
    let mut plain = Vec::new();
    for _ in 0..8 {
        plain.push(whole(&gateway, chat(PLAIN)).await.header("x-backend-used").unwrap().to_owned());
    }
    assert!(plain.iter().any(|id| id == "secret-host"), "{plain:?}");
}

#[tokio::test]
async fn if_no_runner_can_the_field_is_named() {
    let gateway = text_only();
    assert_eq!(whole(&gateway, chat(PLAIN)).await.status, 200);
    for (path, rest, field) in [
        ("chat/completions", r#""tools":[{}]"#, "tools"),
        ("chat/completions", r#""functions":[{}]"#, "functions"),
        ("chat/completions", r#""n":2"#, "n"),
        ("chat/completions", r#""logprobs":true,"top_logprobs":2"#, "logprobs"),
        ("chat/completions", r#""messages":[{"content":[{"type":"image_url"}]}]"#, "messages"),
        ("chat/completions", r#""response_format":{"type":"json_object"}"#, "response_format"),
        ("chat/completions", r#""stream":true,"stop":["x"]"#, "stop"),
        ("completions", r#""prompt":["a","b"]"#, "prompt"),
        ("completions", r#""prompt":"a","best_of":2"#, "best_of"),
        ("completions", r#""prompt":"a","echo":true"#, "echo"),
        ("embeddings", r#""input":"a""#, "input"),
    ] {
        let body = format!(r#"{{"model":"m",{rest}}}"#);
        let answer = whole(&gateway, as_client(post(&format!("/v1/{path}"), body))).await;
        assert_eq!(answer.status, 400, "{rest}: {answer:?}");
        let (kind, code, param) = answer.error();
        assert_eq!((&*kind, code.as_deref()), ("invalid_request_error", Some("unsupported_parameter")));
        assert_eq!(param.as_deref(), Some(field));
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(&format!("`{field}`")) && message.contains("`m`"), "{message}");
        assert!(!message.contains("secret-host"), "{message}");
        assert_eq!(answer.header("retry-after"), None);
    }
    assert!(gateway.metrics_text().contains(r#"gateway_refused_total{reason="lacking"} 11"#));
}

#[tokio::test(start_paused = true)]
async fn an_event_stream_that_has_begun_is_told_in_its_last_event() {
    // Who could do it is full, and goes while the request waits.
    let gateway = builder().sse_keepalive(std::time::Duration::from_secs(1)).build().unwrap();
    join_with(&gateway, spec("plain").lacks(Feature::Tools), status(), &Mock::ok());
    let able = join_with(&gateway, spec("able").slots(1), status(), &Mock::ok());
    let _taken = gateway.dispatcher().registry().fleet().runner("able").unwrap().try_reserve();
    let streamed = TOOLS.replacen('{', r#"{"stream":true,"#, 1);
    let answer = send(&gateway, chat(streamed)).await;
    assert_eq!(answer.status(), 200);
    gateway.dispatcher().registry().leave(&able, gateway_core::LeaveReason::Disconnected);
    let answer = Whole::of(answer).await;
    let text = std::str::from_utf8(&answer.body).unwrap();
    let error = text.lines().find_map(|line| line.strip_prefix("data: {")).unwrap();
    assert!(error.contains(r#""param":"tools""#) && error.contains("unsupported_parameter"), "{text}");
}

#[tokio::test]
async fn one_that_could_if_it_were_well_is_worth_another_try() {
    let gateway = text_only();
    let ill = RunnerStatus { health: Health::Unhealthy, ..status() };
    join_with(&gateway, spec("ill"), ill, &Mock::ok());
    let answer = whole(&gateway, chat(TOOLS)).await;
    assert_eq!(answer.status, 503);
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("1 unable to do what is asked") && message.contains("1 not healthy"),
        "{message}"
    );
}

#[tokio::test]
async fn admins_see_what_is_asked_and_who_lacks_it() {
    let gateway = builder().build().unwrap();
    join_with(&gateway, spec("able"), status(), &Mock::ok());
    join_with(&gateway, spec("plain").lacks(Features::TOOLS), status(), &Mock::ok());
    let explained = whole(&gateway, as_admin(post("/admin/explain", TOOLS))).await.json();
    assert_eq!(explained["asks_for"], serde_json::json!(["tools"]));
    let verdicts = explained["runners"].as_array().unwrap().iter();
    let verdicts: Vec<_> = verdicts.map(|runner| (&runner["verdict"], &runner["why"])).collect();
    assert_eq!(verdicts[0].0, "eligible");
    assert_eq!(verdicts[1].0, "lacks_feature");
    assert_eq!(verdicts[1].1, "cannot do calls of functions (`tools`)");
    let runners = whole(&gateway, as_admin(get("/admin/runners"))).await.json();
    assert_eq!(runners["runners"][0]["lacks"], serde_json::json!([]));
    assert_eq!(runners["runners"][1]["lacks"], serde_json::json!(["tools", "functions"]));
}
