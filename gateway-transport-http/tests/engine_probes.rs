//! Every kind of engine is recognised by what it answers, and what it does not tell stays unknown.
//!
//! The files in `answers/` are what the engines send.

mod support;

use gateway_core::{
    Command, CommandReply, Health, Modalities, Modality, Model, ModelId, ModelState, ReportedLoad,
    RunnerLink, RunnerStatus,
};
use gateway_transport_http::{EngineLink, HttpLink};
use support::*;

const LLAMA_MODELS: &str = include_str!("answers/llama_cpp_models.json");
const LLAMA_PROPS: &str = include_str!("answers/llama_cpp_props.json");
const LLAMA_SLOTS: &str = include_str!("answers/llama_cpp_slots.json");
const LLAMA_METRICS: &str = include_str!("answers/llama_cpp_metrics.txt");
const OLLAMA_MODELS: &str = include_str!("answers/ollama_models.json");
const OLLAMA_TAGS: &str = include_str!("answers/ollama_tags.json");
const OLLAMA_PS: &str = include_str!("answers/ollama_ps.json");
const VLLM_MODELS: &str = include_str!("answers/vllm_models.json");
const VLLM_METRICS: &str = include_str!("answers/vllm_metrics.txt");

fn engine(server: &Scripted) -> EngineLink {
    EngineLink::new(HttpLink::new(&server.url).unwrap())
}

fn model(name: &str) -> ModelId {
    ModelId::new(name).unwrap()
}

async fn command(engine: &EngineLink, command: Command) -> CommandReply {
    soon("the command", engine.command(command)).await.unwrap()
}

async fn status(engine: &EngineLink) -> RunnerStatus {
    let reply = command(engine, Command::Status).await;
    assert_eq!(reply.result, Ok(()));
    reply.status.unwrap()
}

fn state<'a>(status: &'a RunnerStatus, name: &str) -> &'a ModelState {
    &status.models.iter().find(|model| model.id.as_str() == name).unwrap().state
}

#[tokio::test]
async fn llama_cpp_with_everything() {
    let server = Scripted::start([
        ("/v1/models", 200, LLAMA_MODELS),
        ("/props", 200, LLAMA_PROPS),
        ("/metrics", 200, LLAMA_METRICS),
        ("/slots", 200, LLAMA_SLOTS),
        ("/health", 200, r#"{"status":"ok"}"#),
    ])
    .await;
    let engine = engine(&server);
    let status = status(&engine).await;
    assert_eq!(status.health, Health::Healthy);
    assert_eq!(status.load, Some(ReportedLoad { active: 2, queued: 3 }));
    let [model] = &*status.models else { panic!("{:?}", status.models) };
    assert_eq!((model.id.as_str(), &model.state), ("tiny-random", &ModelState::Loaded));
    assert_eq!(model.context_length, Some(2048));
    assert_eq!(model.size_bytes, Some(555_776));
    assert_eq!(model.owned_by.as_deref(), Some("llamacpp"));
    let known = model.modalities.unwrap();
    assert!(known.covers(Modalities::default().with(Modality::Text).with(Modality::Embedding)));
    assert!(!known.covers(Modalities::default().with(Modality::Image)));
    assert_eq!(engine.slots().await, Some(4));
    assert!(server.asked("/slots").is_empty(), "one question is enough for the load");
}

#[tokio::test]
async fn llama_cpp_without_metrics_tells_its_load_by_its_slots() {
    let props = LLAMA_PROPS.replace(r#""endpoint_metrics":true"#, r#""endpoint_metrics":false"#);
    let server = Scripted::start([
        ("/v1/models", 200, LLAMA_MODELS),
        ("/props", 200, &props),
        ("/slots", 200, LLAMA_SLOTS),
    ])
    .await;
    let busy = u32::try_from(LLAMA_SLOTS.matches(r#""is_processing":true"#).count()).unwrap();
    assert!(busy > 0);
    assert_eq!(status(&engine(&server)).await.load, Some(ReportedLoad { active: busy, queued: 0 }));
    server.set("/slots", 501, "{}");
    assert_eq!(status(&engine(&server)).await.load, None);
}

#[tokio::test]
async fn llama_cpp_that_tells_nothing_more() {
    let server = Scripted::start([("/v1/models", 200, LLAMA_MODELS)]).await;
    let engine = engine(&server);
    let status = status(&engine).await;
    assert_eq!((status.health, status.load, status.models.len()), (Health::Healthy, None, 1));
    assert_eq!(status.models[0].modalities, None);
    assert_eq!(engine.slots().await, None);
}

#[tokio::test]
async fn llama_cpp_has_its_one_model_and_loads_no_other() {
    let server = Scripted::start([("/v1/models", 200, LLAMA_MODELS)]).await;
    let engine = engine(&server);
    assert_eq!(command(&engine, Command::LoadModel(model("tiny-random"))).await.result, Ok(()));
    let unloading = engine.command(Command::UnloadModel(model("tiny-random"))).await.unwrap_err();
    assert!(unloading.is_unsupported() && unloading.to_string().contains("unload_model"), "{unloading}");
    let unknown = command(&engine, Command::LoadModel(model("other"))).await.result.unwrap_err();
    assert!(unknown.contains("other"), "{unknown}");
}

#[tokio::test]
async fn llama_cpp_that_still_loads_is_starting() {
    let loading = r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#;
    let server = Scripted::start([("/v1/models", 503, loading), ("/health", 503, loading)]).await;
    let engine = engine(&server);
    assert_eq!(status(&engine).await.health, Health::Starting);
    // Some versions list the model before it is there.
    server.set("/v1/models", 200, LLAMA_MODELS);
    assert_eq!(status(&engine).await.health, Health::Starting);
    server.set("/health", 200, "{}");
    assert_eq!(status(&engine).await.health, Health::Healthy);
}

fn router_models(state: &str) -> String {
    format!(
        r#"{{"object":"list","data":[
            {{"id":"a","owned_by":"llamacpp","object":"model","created":1,"status":{{"value":"loaded","args":["x"]}}}},
            {{"id":"b","owned_by":"llamacpp","object":"model","created":1,"status":{{"value":{state}}}}}]}}"#
    )
}

#[tokio::test]
async fn llama_cpps_router_loads_and_unloads() {
    let server = Scripted::start([
        ("/v1/models", 200, &*router_models(r#""unloaded""#)),
        ("/models/load", 200, r#"{"success":true}"#),
        ("/models/unload", 200, r#"{"success":true}"#),
    ])
    .await;
    let engine = engine(&server);
    let before = status(&engine).await;
    assert_eq!((state(&before, "a"), state(&before, "b")), (&ModelState::Loaded, &ModelState::OnDemand));

    let loading = command(&engine, Command::LoadModel(model("b")));
    let load = async {
        while server.asked("/models/load").is_empty() {
            tokio::task::yield_now().await;
        }
        server.set("/v1/models", 200, &router_models(r#""loading""#));
        let looks = server.asked("/v1/models").len();
        while server.asked("/v1/models").len() < looks + 2 {
            tokio::task::yield_now().await;
        }
        server.set("/v1/models", 200, &router_models(r#""loaded""#));
    };
    let (reply, ()) = soon("loading", async { tokio::join!(loading, load) }).await;
    assert_eq!(reply.result, Ok(()));
    assert_eq!(state(&reply.status.unwrap(), "b"), &ModelState::Loaded);
    assert_eq!(server.asked("/models/load")[0].body, r#"{"model":"b"}"#);

    server.set("/v1/models", 200, &router_models(r#""unloaded""#));
    server.set("/models/load", 200, "{}");
    let failing = router_models(r#""unloaded","failed":true,"exit_code":1"#);
    let loading = command(&engine, Command::LoadModel(model("b")));
    let fail = async {
        while server.asked("/models/load").len() < 2 {
            tokio::task::yield_now().await;
        }
        server.set("/v1/models", 200, &failing);
    };
    let (reply, ()) = soon("failing", async { tokio::join!(loading, fail) }).await;
    assert!(reply.result.unwrap_err().contains("failed"));
}

async fn ollama() -> Scripted {
    Scripted::start([
        ("/v1/models", 200, OLLAMA_MODELS),
        ("/api/version", 200, r#"{"version":"0.6.8"}"#),
        ("/api/tags", 200, OLLAMA_TAGS),
        ("/api/ps", 200, OLLAMA_PS),
        ("/api/generate", 200, r#"{"model":"llama3.2","response":"","done":true,"done_reason":"load"}"#),
    ])
    .await
}

#[tokio::test]
async fn ollama_lists_what_is_on_disk_and_what_is_in_memory() {
    let server = ollama().await;
    let engine = engine(&server);
    for _ in 0..3 {
        let status = status(&engine).await;
        assert_eq!((status.health, status.load), (Health::Healthy, None));
        let [llama, nomic] = &*status.models else { panic!("{:?}", status.models) };
        assert_eq!((llama.id.as_str(), &llama.state), ("llama3.2:latest", &ModelState::Loaded));
        assert_eq!((llama.context_length, llama.size_bytes), (Some(4096), Some(3_826_793_677)));
        assert_eq!((llama.created, llama.owned_by.as_deref()), (Some(1_746_405_464), Some("library")));
        assert_eq!((nomic.id.as_str(), &nomic.state), ("nomic-embed-text:v1.5", &ModelState::OnDemand));
        assert_eq!(nomic.context_length, None);
    }
    assert_eq!(server.asked("/api/version").len(), 1, "recognised once");
    assert_eq!(engine.slots().await, None);
}

#[tokio::test]
async fn ollama_loads_and_unloads_without_a_prompt() {
    let server = ollama().await;
    let engine = engine(&server);
    let reply = command(&engine, Command::LoadModel(model("llama3.2"))).await;
    assert_eq!(reply.result, Ok(()));
    assert_eq!(reply.status.unwrap().models.len(), 2);
    command(&engine, Command::UnloadModel(model("llama3.2:latest"))).await.result.unwrap();
    let asked: Vec<serde_json::Value> =
        server.asked("/api/generate").iter().map(|ask| serde_json::from_slice(&ask.body).unwrap()).collect();
    assert_eq!(asked[0], serde_json::json!({"model": "llama3.2:latest", "keep_alive": -1, "stream": false}));
    assert_eq!(asked[1], serde_json::json!({"model": "llama3.2:latest", "keep_alive": 0, "stream": false}));

    server.set("/api/generate", 500, r#"{"error":"model requires more system memory"}"#);
    let reply = command(&engine, Command::LoadModel(model("llama3.2"))).await;
    assert_eq!(reply.result.unwrap_err(), "500: model requires more system memory");
}

#[tokio::test]
async fn ollama_loads_a_model_that_only_embeds() {
    let server = ollama().await;
    server.set("/api/generate", 400, r#"{"error":"\"nomic-embed-text\" does not support generate"}"#);
    server.set("/api/embed", 200, r#"{"model":"nomic-embed-text:v1.5","embeddings":[]}"#);
    let reply = command(&engine(&server), Command::LoadModel(model("nomic-embed-text:v1.5"))).await;
    assert_eq!(reply.result, Ok(()));
    assert_eq!(server.asked("/api/embed").len(), 1);
}

#[tokio::test]
async fn ollama_without_a_model_is_well() {
    let server = ollama().await;
    server.set("/v1/models", 200, r#"{"object":"list","data":null}"#);
    server.set("/api/tags", 200, r#"{"models":[]}"#);
    server.set("/api/ps", 200, r#"{"models":[]}"#);
    let status = status(&engine(&server)).await;
    assert_eq!((status.health, status.models.len()), (Health::Healthy, 0));
}

#[tokio::test]
async fn vllm() {
    let server = Scripted::start([
        ("/v1/models", 200, VLLM_MODELS),
        ("/metrics", 200, VLLM_METRICS),
        ("/health", 200, ""),
    ])
    .await;
    let engine = engine(&server);
    let told = status(&engine).await;
    assert_eq!(told.load, Some(ReportedLoad { active: 12, queued: 1 }));
    assert_eq!(told.models[0].context_length, Some(32768));
    server.set("/health", 500, "");
    assert_eq!(status(&engine).await.health, Health::Unhealthy);
    server.set("/metrics", 404, "");
    assert_eq!(status(&engine).await.load, None);
}

#[tokio::test]
async fn any_other_engine() {
    let long = "x".repeat(ModelId::MAX_LEN + 1);
    let list =
        format!(r#"{{"object":"list","data":[{{"id":"m","created":"odd","extra":[1]}},{{"id":"{long}"}}]}}"#);
    let server = Scripted::start([("/v1/models", 200, &*list)]).await;
    let engine = engine(&server);
    for _ in 0..3 {
        let status = status(&engine).await;
        assert_eq!(
            status,
            RunnerStatus {
                health: Health::Healthy,
                models: vec![Model::loaded(model("m"))],
                ..RunnerStatus::default()
            }
        );
    }
    assert_eq!(server.asked("/api/version").len(), 1);
    assert!(engine.command(Command::UnloadModel(model("m"))).await.unwrap_err().is_unsupported());
}

#[tokio::test]
async fn what_is_no_engine_says_why() {
    for (status, body, word) in [
        (404, "nothing here", "404"),
        (401, r#"{"error":{"message":"Invalid API Key"}}"#, "Invalid API Key"),
        (200, "<html>", "no list"),
        (500, "", "500"),
    ] {
        let server = Scripted::start([("/v1/models", status, body)]).await;
        let reply = command(&engine(&server), Command::Status).await;
        assert!(reply.result.clone().unwrap_err().contains(word), "{reply:?}");
        assert_eq!(reply.status, None);
    }
}

#[tokio::test]
async fn nobody_there_is_an_error_of_the_link() {
    let server = Server::answering("").await;
    let engine = EngineLink::new(HttpLink::new(&server.url).unwrap());
    server.stop_listening().await;
    assert!(engine.command(Command::Status).await.unwrap_err().is_not_sent());
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let server = Server::start(|_, mut peer| async move {
        peer.request().await;
        peer.write("HTTP/1.1 200 OK\r\n\r\n").await;
        let block = "x".repeat(1024 * 1024);
        for _ in 0..64 {
            peer.write(&block).await;
        }
    })
    .await;
    let engine = EngineLink::new(HttpLink::new(&server.url).unwrap());
    let error = soon("the probe", engine.command(Command::Status)).await.unwrap_err();
    assert!(error.to_string().contains("8 MiB"), "{error}");
}

#[tokio::test]
async fn a_silent_engine_is_given_up() {
    let (silent, fell_silent) = tokio::sync::oneshot::channel();
    let silent = std::sync::Mutex::new(Some(silent));
    let server = Server::start(move |_, mut peer| {
        let silent = silent.lock().unwrap().take();
        async move {
            peer.request().await;
            if let Some(silent) = silent {
                let _ = silent.send(());
            }
            peer.ended().await;
        }
    })
    .await;
    let engine = EngineLink::new(HttpLink::new(&server.url).unwrap());
    let probe = tokio::spawn(async move { engine.command(Command::Status).await });
    fell_silent.await.unwrap();
    // The question is there and no answer will come: the rest is the clock's affair.
    tokio::time::pause();
    let asked = tokio::time::Instant::now();
    let error = probe.await.unwrap().unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert!(asked.elapsed() <= std::time::Duration::from_secs(6));
}
