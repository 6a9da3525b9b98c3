//! The demo's engine speaks OpenAI's API well enough for any client.

#[path = "../standalone/demo/answer.rs"]
mod answer;
#[path = "../standalone/demo/engine.rs"]
mod engine;
#[path = "../standalone/demo/ngram.rs"]
mod ngram;

use std::sync::Arc;
use std::time::Duration;

use engine::{DemoEngine, MODEL, PACE};
use gateway_core::{Command, LinkResponse, ModelId, RequestBody, RunnerLink};
use http_body_util::BodyExt;
use ngram::NGram;
use serde_json::{Value, json};
use tokio::time::Instant;

fn engine() -> DemoEngine {
    DemoEngine::new(Arc::new(NGram::learn(include_str!("../standalone/demo/text.txt"))))
}

async fn ask(engine: &DemoEngine, path: &str, body: Value) -> LinkResponse {
    let request = http::Request::post(path).body(RequestBody::from(body.to_string())).unwrap();
    engine.send(request).await.unwrap()
}

async fn whole(response: LinkResponse) -> Value {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap()
}

fn chat(extra: Value) -> Value {
    let mut body = json!({"model": MODEL, "messages": [{"role": "user", "content": "Alice was"}]});
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[tokio::test(start_paused = true)]
async fn the_same_prompt_gives_the_same_text_and_another_seed_another() {
    let engine = engine();
    let mut texts = Vec::new();
    for extra in [json!({"max_tokens": 40}), json!({"max_tokens": 40}), json!({"max_tokens": 40, "seed": 7})]
    {
        let answer = whole(ask(&engine, "/v1/chat/completions", chat(extra)).await).await;
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
        assert_eq!(answer["usage"], json!({"prompt_tokens": 2, "completion_tokens": 40, "total_tokens": 42}));
        texts.push(answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned());
    }
    assert_eq!(texts[0], texts[1]);
    assert_ne!(texts[0], texts[2]);
    assert!(texts[0].split(' ').count() > 25, "{}", texts[0]);
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_it_ends_with_a_sentence() {
    let answer = whole(ask(&engine(), "/v1/chat/completions", chat(json!({}))).await).await;
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert!(text.ends_with(['.', '!', '?']), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_comes_token_by_token_and_ends_with_usage_and_done() {
    let extra = json!({"max_tokens": 10, "stream": true, "stream_options": {"include_usage": true}});
    let started = Instant::now();
    let mut body = ask(&engine(), "/v1/chat/completions", chat(extra)).await.into_body();
    let mut text = String::new();
    let mut frames = 0;
    while let Some(frame) = body.frame().await {
        frames += 1;
        text.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
        assert!(started.elapsed() >= PACE * frames.min(10), "frame {frames} came too early");
    }
    assert_eq!(frames, 11);
    let events: Vec<&str> = text.split("\n\n").filter(|event| !event.is_empty()).collect();
    assert_eq!(events.last(), Some(&"data: [DONE]"));
    let usage: Value =
        serde_json::from_str(events[events.len() - 2].strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(10)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_begins_with_a_word() {
    let engine = engine();
    for prompt in ["What did the Cheshire Cat", "Then the Queen", "", ".", "no such words"] {
        let body = json!({"model": MODEL, "prompt": prompt, "max_tokens": 3});
        let answer = whole(ask(&engine, "/v1/completions", body).await).await;
        let text = answer["choices"][0]["text"].as_str().unwrap();
        assert!(text.starts_with(char::is_alphanumeric), "{prompt}: {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn completions_give_text() {
    let body = json!({"model": MODEL, "prompt": "The Queen", "max_tokens": 5});
    let answer = whole(ask(&engine(), "/v1/completions", body).await).await;
    assert_eq!(answer["object"], "text_completion");
    assert!(!answer["choices"][0]["text"].as_str().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn mistakes_are_told_apart() {
    let engine = engine();
    for (path, body, status) in [
        ("/v1/chat/completions", json!({"model": MODEL, "messages": []}), 400),
        ("/v1/chat/completions", json!({"messages": []}), 400),
        ("/v1/chat/completions", chat(json!({"max_tokens": 0})), 400),
        ("/v1/chat/completions", chat(json!({"model": "other"})), 404),
        ("/v1/embeddings", json!({"model": MODEL, "input": "a"}), 404),
    ] {
        let response = ask(&engine, path, body).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        assert!(whole(response).await["error"]["message"].is_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_stops_and_the_load_is_back_to_zero() {
    let engine = engine();
    let active = async || {
        let reply = engine.command(Command::Status).await.unwrap();
        reply.status.unwrap().load.unwrap().active
    };
    let mut body = ask(&engine, "/v1/chat/completions", chat(json!({"stream": true, "max_tokens": 1000})))
        .await
        .into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(active().await, 1);
    drop(body);
    assert_eq!(active().await, 0);
}

#[tokio::test(start_paused = true)]
async fn commands_are_answered() {
    let engine = engine();
    let load = |name| Command::LoadModel(ModelId::new(name).unwrap());
    assert_eq!(engine.command(load(MODEL)).await.unwrap().result, Ok(()));
    assert!(engine.command(load("other")).await.unwrap().result.is_err());
    let unload = Command::UnloadModel(ModelId::new(MODEL).unwrap());
    assert!(engine.command(unload).await.unwrap().result.is_err());
}

#[tokio::test]
async fn learning_takes_no_time_worth_waiting_for() {
    let started = std::time::Instant::now();
    let _ = engine();
    assert!(started.elapsed() < Duration::from_secs(2));
}
