//! A kind that is given is asked its own questions only; one that is not is found out. What is odd stays unknown.

mod support;

use std::time::Duration;

use gateway_core::{
    Command, Health, ModelId, ReportedLoad, ResourceReport, Resources, RunnerLink, RunnerStatus,
};
use gateway_transport_http::{EngineKind, EngineLink, HttpLink};
use support::*;

const SGLANG_MODELS: &str = include_str!("answers/sglang_models.json");
const SGLANG_INFO: &str = include_str!("answers/sglang_server_info.json");
const SGLANG_METRICS: &str = include_str!("answers/sglang_metrics.txt");
const VLLM_MODELS: &str = include_str!("answers/vllm_models.json");
const VLLM_METRICS: &str = include_str!("answers/vllm_metrics.txt");
const OLLAMA_TAGS: &str = include_str!("answers/ollama_tags.json");
const OLLAMA_PS: &str = include_str!("answers/ollama_ps.json");
const FLAT: &str = r#"{"available_cpus":6.5,"available_gpus":1.0,"available_memory_gb":24.0,"total_workers":4,"idle_workers":3}"#;
const NESTED: &str = r#"{"total":{"cpus":8.0,"gpus":2.0,"memory_gb":32.0},
    "available":{"cpus":6.5,"gpus":1.0,"memory_gb":24.0},"allocated":{"cpus":1.5,"gpus":1.0,"memory_gb":8.0},
    "workers":[
        {"worker_id":"a","state":"Busy","capabilities":{"cpus":4.0,"gpus":1.0,"memory_gb":16.0},"allocated":{},"available":{}},
        {"worker_id":"b","state":"Idle","capabilities":{"cpus":4.0,"gpus":1.0,"memory_gb":16.0},"allocated":{},"available":{}}]}"#;
const HEALTHY: &str = r#"{"status":"healthy","service":"neutrino-orchestrator"}"#;

fn engine(server: &Scripted) -> EngineLink {
    EngineLink::new(HttpLink::new(&server.url).unwrap()).capacity_age(Duration::ZERO)
}

async fn status(engine: &EngineLink) -> RunnerStatus {
    let reply = soon("the probe", engine.command(Command::Status)).await.unwrap();
    assert_eq!(reply.result, Ok(()));
    reply.status.unwrap()
}

/// What it was asked, each path once.
fn questions(server: &Scripted) -> Vec<String> {
    let mut paths = server.all_asked();
    paths.sort();
    paths.dedup();
    paths
}

fn free() -> Option<Resources> {
    Some(Resources { cpus: 6.5, gpus: 1.0, memory_gb: 24.0 })
}

async fn sglang() -> Scripted {
    Scripted::start([
        ("/v1/models", 200, SGLANG_MODELS),
        ("/server_info", 200, SGLANG_INFO),
        ("/metrics", 200, SGLANG_METRICS),
        ("/health", 200, ""),
    ])
    .await
}

#[tokio::test]
async fn sglang_with_everything() {
    for kind in [EngineKind::Auto, EngineKind::Sglang] {
        let server = sglang().await;
        let engine = engine(&server).kind(kind);
        let told = status(&engine).await;
        assert_eq!(engine.recognised(), EngineKind::Sglang);
        assert_eq!(told.health, Health::Healthy);
        assert_eq!(told.models[0].id.as_str(), "Qwen/Qwen2.5-0.5B-Instruct");
        assert_eq!(told.models[0].context_length, Some(32768));
        assert_eq!(
            told.load,
            Some(ReportedLoad { active: 11, queued: 3 }),
            "each replica once, whatever its ranks"
        );
        assert_eq!(engine.slots().await, Some(256));
        assert_eq!(
            questions(&server),
            ["/metrics", "/server_info", "/v1/models"],
            "its health would be a token"
        );
        server.set("/server_info", 503, "");
        assert_eq!(status(&engine).await.health, Health::Unhealthy);
    }
}

#[tokio::test]
async fn sglang_that_is_older_and_has_no_metrics() {
    let info = SGLANG_INFO
        .replace("effective_max", "other")
        .replace(r#""max_running_requests":null"#, r#""max_running_requests":64"#);
    let server = Scripted::start([
        ("/v1/models", 200, &*SGLANG_MODELS.replace("32768", "null")),
        ("/get_server_info", 200, &info.replace(r#""context_length":null"#, r#""context_length":4096"#)),
        ("/get_load", 200, r#"[{"dp_rank":0,"num_reqs":5,"num_waiting_reqs":2,"num_tokens":900},{"dp_rank":1,"num_reqs":1,"num_waiting_reqs":0}]"#),
    ])
    .await;
    let engine = engine(&server);
    let told = status(&engine).await;
    assert_eq!(told.models[0].context_length, Some(4096));
    assert_eq!(told.load, Some(ReportedLoad { active: 4, queued: 2 }));
    assert_eq!(engine.slots().await, Some(64));
    server.set("/get_load", 200, "[]");
    assert_eq!(status(&engine).await.load, None);
}

#[tokio::test]
async fn vllm_without_metrics_tells_its_load_once_it_counts() {
    let server =
        Scripted::start([("/v1/models", 200, VLLM_MODELS), ("/load", 200, r#"{"server_load":0}"#)]).await;
    let engine = engine(&server).kind(EngineKind::Vllm);
    assert_eq!(status(&engine).await.load, None, "nobody knows whether it counts");
    server.set("/load", 200, r#"{"server_load":3}"#);
    assert_eq!(status(&engine).await.load, Some(ReportedLoad { active: 3, queued: 0 }));
    server.set("/load", 200, r#"{"server_load":0}"#);
    assert_eq!(status(&engine).await.load, Some(ReportedLoad { active: 0, queued: 0 }));
    server.set("/metrics", 200, VLLM_METRICS);
    assert_eq!(status(&engine).await.load, Some(ReportedLoad { active: 12, queued: 1 }));
    assert_eq!(engine.slots().await, None);
}

#[tokio::test]
async fn neutrino_in_both_forms_and_found_out() {
    for (capacity, total, slots) in [(FLAT, None, 4), (NESTED, Some((8.0, 2.0, 32.0)), 2)] {
        for kind in [EngineKind::Auto, EngineKind::Neutrino] {
            let server = Scripted::start([("/capacity", 200, capacity), ("/health", 200, HEALTHY)]).await;
            let engine = engine(&server).kind(kind);
            let told = status(&engine).await;
            assert_eq!((told.health, told.models.len()), (Health::Healthy, 0));
            assert_eq!(told.resources.available, free());
            let total = total.map(|(cpus, gpus, memory_gb)| Resources { cpus, gpus, memory_gb });
            assert_eq!(told.resources.total, total);
            assert!(told.resources.max_age.unwrap() < PATIENCE);
            assert_eq!(told.load, Some(ReportedLoad { active: 1, queued: 0 }));
            assert_eq!((engine.slots().await, engine.recognised()), (Some(slots), EngineKind::Neutrino));
            let asked = server.asked("/v1/models").len();
            status(&engine).await;
            assert_eq!(server.asked("/v1/models").len(), asked, "not asked again");
            server.set("/health", 503, r#"{"status":"unhealthy"}"#);
            assert_eq!(status(&engine).await.health, Health::Unhealthy);
            server.set("/health", 200, r#"{"status":"starting"}"#);
            assert_eq!(status(&engine).await.health, Health::Starting);
        }
    }
}

#[tokio::test]
async fn neutrino_with_all_workers_idle_tells_what_there_is() {
    let idle = FLAT.replace(r#""idle_workers":3"#, r#""idle_workers":4"#);
    let server = Scripted::start([("/capacity", 200, &*idle), ("/health", 200, HEALTHY)]).await;
    let told = status(&engine(&server).kind(EngineKind::Neutrino)).await.resources;
    assert_eq!((told.total, told.available), (free(), free()));
}

#[tokio::test]
async fn what_capacity_reports_are_old_is_told() {
    let server = Scripted::start([("/capacity", 200, FLAT), ("/health", 200, HEALTHY)]).await;
    let engine = EngineLink::new(HttpLink::new(&server.url).unwrap()).kind(EngineKind::Neutrino);
    let age = status(&engine).await.resources.max_age.unwrap();
    assert!(age >= EngineLink::CAPACITY_AGE && age < EngineLink::CAPACITY_AGE + PATIENCE, "{age:?}");
    let engine = engine.capacity_age(Duration::from_secs(7));
    assert!(status(&engine).await.resources.max_age.unwrap() >= Duration::from_secs(7));
}

#[tokio::test]
async fn odd_capacity_stays_unknown_and_fails_no_probe() {
    let server = Scripted::start([("/health", 200, HEALTHY)]).await;
    let engine = engine(&server).kind(EngineKind::Neutrino);
    for (http, body) in [
        (404, "Not Found"),
        (500, "broken"),
        (200, "<html>"),
        (200, "[]"),
        (200, "null"),
        (200, r#"{"available":"much"}"#),
        (200, r#"{"available":{"cpus":"8"},"workers":7,"total":null}"#),
    ] {
        server.set("/capacity", http, body);
        let told = status(&engine).await;
        assert_eq!(told.health, Health::Healthy, "{body}");
        assert_eq!(told.resources, ResourceReport::default(), "{body}");
    }
    // What is odd hides nothing else.
    let odd = r#"{"available_gpus":-1,"available_cpus":4,"available_memory_gb":null,"total_workers":"two","idle_workers":[],"new":{}}"#;
    server.set("/capacity", 200, odd);
    let told = status(&engine).await.resources;
    assert_eq!(told.available, Some(Resources { cpus: 4.0, gpus: 0.0, memory_gb: 0.0 }));
    assert_eq!(told.total, None);
    let left =
        r#"{"total":{"cpus":8,"gpus":2,"memory_gb":32},"allocated":{"cpus":1,"gpus":2,"memory_gb":8}}"#;
    server.set("/capacity", 200, left);
    let told = status(&engine).await.resources;
    assert_eq!(told.available, Some(Resources { cpus: 7.0, gpus: 0.0, memory_gb: 24.0 }));
}

#[tokio::test]
async fn one_odd_model_hides_no_other() {
    let list = r#"{"object":"list","data":[{"id":7},{"object":"model"},"odd",{"id":"m","owned_by":3}]}"#;
    let server = Scripted::start([("/v1/models", 200, list)]).await;
    let told = status(&engine(&server)).await;
    assert_eq!(told.models.iter().map(|model| model.id.as_str()).collect::<Vec<_>>(), ["m"]);
    server.set("/api/tags", 200, r#"{"models":[{"model":"nameless"},{"name":"a:latest","size":"large"}]}"#);
    let told = status(&engine(&server).kind(EngineKind::Ollama)).await;
    assert_eq!(told.models.iter().map(|model| model.id.as_str()).collect::<Vec<_>>(), ["a:latest"]);
}

#[tokio::test]
async fn metrics_of_odd_shape_leave_the_load_unknown() {
    for odd in
        ["", "<html>", "vllm:num_requests_running", "vllm:num_requests_running{ NaN", "\u{0}\u{1}{{{}}}\n} 5"]
    {
        let server = Scripted::start([("/v1/models", 200, VLLM_MODELS), ("/metrics", 200, odd)]).await;
        let told = status(&engine(&server)).await;
        assert_eq!((told.health, told.load), (Health::Healthy, None), "{odd:?}");
    }
}

#[tokio::test]
async fn a_given_kind_is_not_asked_what_others_are() {
    let all = || {
        Scripted::start([
            ("/v1/models", 200, r#"{"object":"list","data":[{"id":"m","object":"model","owned_by":"me"}]}"#),
            ("/api/version", 200, r#"{"version":"0.6.8"}"#),
            ("/api/tags", 200, OLLAMA_TAGS),
            ("/api/ps", 200, OLLAMA_PS),
            ("/capacity", 200, FLAT),
            ("/health", 200, "{}"),
        ])
    };
    for (kind, asked) in [
        (EngineKind::OpenAi, vec!["/health", "/v1/models"]),
        (EngineKind::LlamaCpp, vec!["/health", "/props", "/v1/models"]),
        (EngineKind::Vllm, vec!["/health", "/load", "/metrics", "/v1/models"]),
        (EngineKind::Sglang, vec!["/get_load", "/get_server_info", "/metrics", "/server_info", "/v1/models"]),
        (EngineKind::Ollama, vec!["/api/ps", "/api/tags", "/v1/models"]),
        (EngineKind::Neutrino, vec!["/capacity", "/health"]),
    ] {
        let server = all().await;
        let told = status(&engine(&server).kind(kind)).await;
        assert_eq!(told.health, Health::Healthy);
        assert_eq!(questions(&server), asked, "{kind}");
        assert_eq!(told.models.is_empty(), kind == EngineKind::Neutrino);
    }
}

#[tokio::test]
async fn what_comes_up_at_the_address_later_is_found_out_anew() {
    let server = Scripted::start([("/capacity", 200, FLAT), ("/health", 200, HEALTHY)]).await;
    let engine = engine(&server);
    status(&engine).await;
    assert_eq!(engine.recognised(), EngineKind::Neutrino);
    server.set("/capacity", 404, "");
    server.set("/v1/models", 200, VLLM_MODELS);
    // One probe finds that it is no Neutrino any more, the next what it is.
    assert!(engine.command(Command::Status).await.unwrap().result.is_err());
    assert_eq!(status(&engine).await.models.len(), 1);
    assert_eq!(engine.recognised(), EngineKind::Vllm);
}

#[tokio::test]
async fn neutrino_has_nothing_to_load() {
    let server = Scripted::start([("/capacity", 200, FLAT), ("/health", 200, HEALTHY)]).await;
    let load = Command::LoadModel(ModelId::new("m").unwrap());
    let reply = engine(&server).kind(EngineKind::Neutrino).command(load).await.unwrap();
    assert!(reply.result.unwrap_err().contains("no model"));
}
