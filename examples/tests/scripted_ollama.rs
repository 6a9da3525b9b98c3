//! An Ollama behind the gateway: recognised, listed, used, loaded and unloaded, by what it really sends.

use std::time::Duration;

use bytes::Bytes;
use gateway_http::Gateway;
use gateway_testkit::ScriptedOllama;
use gateway_transport_http::{EngineKind, HttpRunner, HttpRunners};
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower_service::Service;

struct Setup {
    ollama: ScriptedOllama,
    gateway: Gateway,
    server: gateway_testkit::MockServer,
}

impl Setup {
    async fn new(kind: EngineKind) -> Self {
        let ollama = ScriptedOllama::new(["llama3.2:latest", "qwen2.5:0.5b"]);
        let server = ollama.engine().serve_http().await.unwrap();
        let runner = HttpRunner::new(server.url()).unwrap().id("ollama").kind(kind);
        let runners = HttpRunners::list([runner]).probe_interval(Duration::from_millis(5));
        let builder = Gateway::builder().runners(runners).client_tokens(["c"]).admin_tokens(["a"]);
        let setup = Self { ollama, gateway: builder.build().unwrap(), server };
        setup.until("joining", |fleet| fleet.can_serve()).await;
        setup
    }

    async fn until(&self, what: &str, done: impl Fn(&gateway_core::Fleet) -> bool) {
        let dispatcher = self.gateway.dispatcher();
        let registry = dispatcher.registry();
        let mut events = registry.events();
        let waiting = async {
            while !done(&registry.fleet()) {
                events.next().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("{what}"));
    }

    async fn ask(&self, method: &str, path: &str, token: &str, body: Value) -> (u16, String) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder().method(method).uri(path);
        let request = request.header("authorization", format!("Bearer {token}"));
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let response = self.gateway.clone().call(request).await.unwrap_or_else(|never| match never {});
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, "c", Value::Null).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn order(&self, what: &str, model: &str) -> (u16, String) {
        self.ask("POST", &format!("/admin/runners/ollama/{what}"), "a", json!({"model_id": model})).await
    }
}

#[tokio::test]
async fn it_is_recognised_listed_and_used() {
    for kind in [EngineKind::Auto, EngineKind::Ollama] {
        let setup = Setup::new(kind).await;
        let fleet = setup.gateway.dispatcher().registry().fleet();
        assert_eq!(fleet.runner("ollama").unwrap().spec().labels["engine"], "ollama");
        assert_eq!(setup.get("/readyz").await["status"], "ready");
        assert!(setup.get("/v1/metadata").await["backends"]["available"].to_string().contains("ollama"));
        let models = setup.get("/v1/models").await;
        let ids: Vec<_> =
            models["data"].as_array().unwrap().iter().map(|model| model["id"].as_str()).collect();
        assert_eq!(ids, [Some("llama3.2:latest"), Some("qwen2.5:0.5b")]);

        let messages = json!([{"role": "user", "content": "Hi"}]);
        let chat = json!({"model": "qwen2.5:0.5b", "messages": messages, "stream": true});
        let (status, stream) = setup.ask("POST", "/v1/chat/completions", "c", chat).await;
        assert_eq!(status, 200, "{stream}");
        let chunks = stream.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        let words: String = chunks
            .filter_map(|chunk| serde_json::from_str::<Value>(chunk).ok())
            .map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(words, "Hello from Ollama.");
        assert!(stream.ends_with("data: [DONE]\n\n"), "{stream}");
        let chat = json!({"model": "llama3.2:latest", "messages": messages});
        let (_, whole) = setup.ask("POST", "/v1/chat/completions", "c", chat).await;
        assert!(whole.contains("Hello from Ollama."), "{whole}");
    }
}

#[tokio::test]
async fn models_are_loaded_and_unloaded_by_command() {
    let setup = Setup::new(EngineKind::Auto).await;
    let loaded = |fleet: &gateway_core::Fleet| {
        fleet.model("qwen2.5:0.5b").is_some_and(|entry| !entry.loaded().is_empty())
    };
    assert!(setup.ollama.in_memory().is_empty());
    assert_eq!(setup.order("load-model", "qwen2.5:0.5b").await.0, 200);
    assert_eq!(setup.ollama.in_memory(), ["qwen2.5:0.5b"]);
    setup.until("loaded", loaded).await;
    assert_eq!(setup.order("unload-model", "qwen2.5:0.5b").await.0, 200);
    assert!(setup.ollama.in_memory().is_empty());
    setup.until("unloaded", |fleet| !loaded(fleet)).await;

    setup.ollama.refuse_to_load("model requires more system memory (5.6 GiB) than is available (2.1 GiB)");
    let (status, body) = setup.order("load-model", "llama3.2:latest").await;
    assert!(status == 502 && body.contains("more system memory"), "{status} {body}");
    let (status, body) = setup.order("load-model", "nobody-has-it").await;
    assert!(status >= 400 && body.contains("nobody-has-it"), "{status} {body}");
}

/// Its own API streams lines of JSON; they pass as they are.
#[tokio::test]
async fn its_own_api_streams_lines() {
    let setup = Setup::new(EngineKind::Ollama).await;
    let url = setup.server.url();
    let link = gateway_transport_http::HttpLink::new(&url).unwrap();
    let ask = json!({"model": "llama3.2", "prompt": "Hi"}).to_string();
    let request = http::Request::post("/api/generate").body(gateway_core::RequestBody::from(ask)).unwrap();
    let answer = gateway_core::RunnerLink::send(&link, request).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let body = gateway_testkit::text(answer).await.unwrap();
    let parts: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        parts.iter().map(|part| part["response"].as_str().unwrap()).collect::<String>(),
        "Hello from Ollama."
    );
    assert_eq!(parts.last().unwrap()["done_reason"], "stop");
    assert_eq!(setup.ollama.in_memory(), ["llama3.2:latest"]);
}
