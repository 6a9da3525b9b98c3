//! StreamPredict through the gateway: what becomes of requests, and of their answers.

mod server_support;

use std::collections::HashMap;

use gateway_testkit::{MockEngine, Script, Seen};
use gateway_transport_grpc::proto::ai_inference as plain;
use gateway_transport_grpc::proto::ai_inference::ai_inference_client::AiInferenceClient as PlainClient;
use gateway_transport_grpc::proto::cy_llm::{GenerationParameters, StreamMetadata, StreamPredictRequest};
use gateway_transport_grpc::{GrpcServer, PromptAs};
use serde_json::{Value, json};
use server_support::*;

fn body(engine: &MockEngine) -> Value {
    serde_json::from_slice(&engine.last_seen().expect("a request").body).expect("JSON")
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_numbered_and_ends_with_an_empty_chunk() {
    let engine = MockEngine::new(|_: &Seen| {
        sse(&["Hel", "lo ", "\"\n\u{e9}"]).delay(std::time::Duration::from_millis(250))
    });
    let (_gateway, server) = serve(&engine);
    let request = StreamPredictRequest {
        metadata: Some(StreamMetadata { trace_id: "trace-1".into(), ..StreamMetadata::default() }),
        ..asked("hi")
    };
    let (messages, status) = all(predict(&server, vec![request]).await.unwrap()).await;
    assert!(status.is_none(), "{status:?}");
    assert_eq!(text(&messages), "Hello \"\n\u{e9}");
    assert!(messages.iter().all(|message| message.trace_id == "trace-1"));
    assert_eq!(messages.iter().map(|message| message.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let ends: Vec<_> = messages.iter().map(|message| message.end_of_stream).collect();
    assert_eq!(ends, [false, false, false, true]);
    assert!((250.0..260.0).contains(&messages[0].ttft_ms), "{}", messages[0].ttft_ms);
    assert_eq!(messages[1].ttft_ms, 0.0);
    let last = &messages[3];
    assert_eq!(last.chunk, "");
    assert!((11.0..=12.0).contains(&last.tokens_per_sec), "3 tokens in 250 ms, not {}", last.tokens_per_sec);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_is_not_invented() {
    let engine =
        MockEngine::new(|_: &Seen| Script::sse([r#"{"choices":[{"text":"a","finish_reason":"stop"}]}"#]));
    let (_gateway, server) = serve(&engine);
    let (messages, _) = all(predict(&server, vec![asked("hi")]).await.unwrap()).await;
    assert_eq!(messages.last().unwrap().tokens_per_sec, 0.0);
    assert!(messages[0].trace_id.starts_with("req_"), "the gateway's own id: {}", messages[0].trace_id);
}

#[tokio::test]
async fn everything_that_is_said_goes_over() {
    let engine = words(&["a"]);
    let (_gateway, server) = serve(&engine);
    let request = StreamPredictRequest {
        model_id: "m".into(),
        prompt: "User: \"hi\"\nAssistant:".into(),
        adapter: "lora-1".into(),
        priority: -3,
        generation: Some(GenerationParameters {
            max_new_tokens: 7,
            temperature: 0.25,
            top_p: 0.5,
            repetition_penalty: 1.5,
        }),
        metadata: Some(StreamMetadata {
            trace_id: "trace-1".into(),
            tenant: "t".into(),
            player_id: "p".into(),
            locale: "de".into(),
            extra: HashMap::from([("game".to_owned(), "chess".to_owned())]),
        }),
        worker_hint: "gpu-2".into(),
    };
    all(predict(&server, vec![request]).await.unwrap()).await;
    assert_eq!(
        body(&engine),
        json!({
            "model": "m", "prompt": "User: \"hi\"\nAssistant:", "stream": true,
            "stream_options": {"include_usage": true}, "max_tokens": 7, "temperature": 0.25, "top_p": 0.5,
            "repetition_penalty": 1.5, "repeat_penalty": 1.5, "adapter": "lora-1", "user": "p",
            "metadata": {"tenant": "t", "locale": "de", "game": "chess"},
        })
    );
    let head = engine.last_seen().unwrap().head;
    assert_eq!(head.uri.path(), "/v1/completions");
    assert_eq!(head.headers["x-request-id"], "trace-1");
    assert_eq!(head.headers["x-priority"], "low");
    assert_eq!(head.headers["x-worker-hint"], "gpu-2");
    assert_eq!(head.headers["content-type"], "application/json");
    assert!(!head.headers.contains_key("authorization"), "credentials are for the gateway");
}

#[tokio::test]
async fn what_is_not_set_is_as_the_contract_says() {
    let engine = words(&["a"]);
    let (_gateway, server) = serve(&engine);
    all(predict(&server, vec![asked("hi")]).await.unwrap()).await;
    assert_eq!(
        body(&engine),
        json!({
            "model": "m", "prompt": "hi", "stream": true, "stream_options": {"include_usage": true},
            "max_tokens": 256, "temperature": 0.7, "top_p": 0.9,
        })
    );
    assert!(!engine.last_seen().unwrap().head.headers.contains_key("x-priority"));
}

#[tokio::test]
async fn a_prompt_can_be_a_user_s_message() {
    let engine = MockEngine::new(|_: &Seen| {
        Script::sse([
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"yes"},"finish_reason":null}]}"#,
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
        ])
    });
    let (gateway, _) = serve(&engine);
    let server = GrpcServer::builder(gateway).prompt_as(PromptAs::Chat).build().unwrap();
    let (messages, _) = all(predict(&server, vec![asked("hi")]).await.unwrap()).await;
    assert_eq!((messages.len(), text(&messages)), (2, "yes".to_owned()), "what has no text is no message");
    assert_eq!(body(&engine)["messages"], json!([{"role": "user", "content": "hi"}]));
    assert_eq!(engine.last_seen().unwrap().head.uri.path(), "/v1/chat/completions");
}

#[tokio::test]
async fn the_plain_dialect_is_served_alike() {
    let engine = words(&["a", "b"]);
    let (_gateway, server) = serve(&engine);
    let request = plain::StreamPredictRequest {
        model_id: "m".into(),
        prompt: "hi".into(),
        generation: Some(plain::GenerationParameters {
            max_new_tokens: 5,
            temperature: 0.7,
            top_p: 0.9,
            repetition_penalty: 1.1,
        }),
        metadata: Some(plain::StreamMetadata { trace_id: "t-1".into() }),
        ..plain::StreamPredictRequest::default()
    };
    let mut client = PlainClient::new(server);
    let mut answers =
        client.stream_predict(as_client(tokio_stream::iter([request]))).await.unwrap().into_inner();
    let mut messages = Vec::new();
    while let Some(message) = answers.message().await.unwrap() {
        messages.push((message.index, message.chunk, message.end_of_stream, message.trace_id));
    }
    let trace = || "t-1".to_owned();
    assert_eq!(
        messages,
        [(0, "a".into(), false, trace()), (1, "b".into(), false, trace()), (2, String::new(), true, trace())]
    );
    let body = body(&engine);
    assert_eq!((&body["temperature"], &body["repetition_penalty"]), (&json!(0.7), &json!(1.1)));
}

#[tokio::test]
async fn several_requests_are_served_in_order_one_at_a_time() {
    let (first, script) = Script::fed();
    let scripts = std::sync::Mutex::new(vec![
        sse(&["c"]),
        sse(&["b"]),
        script.header(http::header::CONTENT_TYPE, "text/event-stream"),
    ]);
    let engine = MockEngine::new(move |_: &Seen| scripts.lock().unwrap().pop().expect("three requests"));
    let (_gateway, server) = serve(&engine);
    let mut answers = predict(&server, vec![asked("1"), asked("2"), asked("3")]).await.unwrap();
    let event = r#"{"choices":[{"text":"a","finish_reason":null}]}"#;
    assert!(first.send(format!("data: {event}\n\n")).await);
    assert_eq!(answers.message().await.unwrap().unwrap().chunk, "a");
    assert_eq!(engine.counts().started, 1, "the others wait");
    assert!(first.send("data: [DONE]\n\n").await);
    drop(first);
    let (messages, status) = all(answers).await;
    assert!(status.is_none(), "{status:?}");
    let said: Vec<_> = messages.iter().map(|m| (m.chunk.as_str(), m.index, m.end_of_stream)).collect();
    assert_eq!(
        said,
        [("", 1, true), ("b", 0, false), ("", 1, true), ("c", 0, false), ("", 1, true)],
        "each answer is numbered by itself and has its own end"
    );
    assert_eq!(engine.counts().started, 3);
    assert_eq!(body(&engine)["prompt"], "3");
}

#[tokio::test]
async fn without_a_request_there_is_no_answer() {
    let (_gateway, server) = serve(&words(&["a"]));
    let (messages, status) = all(predict(&server, Vec::new()).await.unwrap()).await;
    assert!(messages.is_empty() && status.is_none());
}
