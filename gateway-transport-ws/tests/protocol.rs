//! The messages, against the forms that shipped programs write and read.

use gateway_core::{Capability, CapabilityReport, Health, Model, ModelId, ModelState, RunnerId, RunnerSpec};
use gateway_transport_ws::protocol::{
    CommandResponse, GatewayMessage, Register, RunnerMessage, RunnerStatus, TunnelGrant, TunnelRequest,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn status(value: Value) -> RunnerStatus {
    serde_json::from_value(value).unwrap()
}

fn id(name: &str) -> ModelId {
    ModelId::new(name).unwrap()
}

/// As a shipped runner sends it, every optional there.
fn full() -> Value {
    json!({
        "type": "register",
        "runner_id": "gpu-1",
        "runner_name": "GPU one",
        "machine_type": "gpu-server",
        "http_port": 8081,
        "protocol_version": 1,
        "auth_token": "secret",
        "status": {
            "health": "healthy",
            "capabilities": [{
                "capability": "fast_chat",
                "status": {"status": "loading", "progress": 0.5},
                "model_id": "a:7b",
                "active_requests": 2,
                "avg_latency_ms": 12.5,
                "metadata": {"any": ["thing"]}
            }],
            "engines": [{
                "engine_type": "llama_cpp",
                "is_healthy": true,
                "version": "b1",
                "loaded_models": ["b:1b"],
                "available_models": [{
                    "id": "b:1b", "name": "B", "size_bytes": 10, "parameter_count": 20,
                    "context_length": 4096, "quantization": "Q4", "modified_at": "2024-02-29T10:30:05Z",
                    "reasoning": {
                        "supported_efforts": ["low", "xhigh"], "supports_thinking_budget": true,
                        "default_effort": "low", "default_thinking_budget_tokens": null
                    }
                }],
                "error": null,
                "batch_size": 4
            }],
            "metrics": null,
            "model_aliases": {"a": "a:7b", "b": "b:1b"}
        },
        "mac_address": "AA:BB:CC:DD:EE:FF"
    })
}

#[test]
fn a_shipped_registration_is_read_and_written_without_a_difference() {
    let message = RunnerMessage::parse(&full().to_string()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&message.to_text()).unwrap(), full());
    let RunnerMessage::Register(register) = message else { panic!() };
    let spec = register.spec().unwrap();
    assert_eq!((spec.id.as_str(), spec.name.as_str()), ("gpu-1", "GPU one"));
    assert_eq!(spec.machine.mac_address.as_deref(), Some("AA:BB:CC:DD:EE:FF"));
    let status = register.status.to_core();
    let model = |name: &str| status.models.iter().find(|model| model.id.as_str() == name).unwrap();
    assert_eq!(model("b").state, ModelState::Loaded);
    assert_eq!(model("b").local_name().as_str(), "b:1b");
    assert_eq!((model("b").context_length, model("b").size_bytes), (Some(4096), Some(10)));
    assert_eq!(model("b").created, Some(1_709_202_605));
    assert_eq!(model("a").state, ModelState::Loading { progress: Some(0.5) });
    assert_eq!(status.capabilities[0].model, Some(id("a")));
    assert_eq!(status.load.map(|load| (load.active, load.queued)), Some((2, 0)));
    assert_eq!(status.models.len(), 2);
}

#[test]
fn an_older_runner_lacks_fields() {
    let text = json!({
        "type": "register", "runner_id": "r", "runner_name": "R", "machine_type": null, "protocol_version": 1,
        "auth_token": "t",
        "status": {"health": "starting", "capabilities": [],
                   "engines": [{"engine_type": "ollama", "is_healthy": true, "loaded_models": ["a"]}]},
    });
    let RunnerMessage::Register(register) = RunnerMessage::parse(&text.to_string()).unwrap() else {
        panic!()
    };
    assert_eq!((register.http_port, register.status.engines[0].batch_size), (8080, 1));
    assert_eq!(register.status.to_core().health, Health::Starting);
}

#[test]
fn what_is_not_known_is_skipped_and_the_rest_counts() {
    let status = status(json!({
        "health": "healthy",
        "new_field": {"a": [1]},
        "load": "high",
        "resources": {"total": {"cpus": 8.0, "gpus": 1.0, "memory_gb": 64.0}},
        "model_aliases": null,
        "metrics": {"requests_processed": -1},
        "capabilities": [
            {"capability": "telepathy", "status": {"status": "loaded"}, "model_id": "x"},
            {"capability": "tts", "status": {"status": "dreaming"}, "model_id": "y"},
            {"capability": "tts", "status": "loaded", "model_id": "z"},
            7,
        ],
        "engines": [
            {"engine_type": "an engine of tomorrow", "is_healthy": true, "loaded_models": ["a", "", "b"],
             "available_models": [{"name": "no id"}, {"id": "c", "reasoning": 3}]},
            {"is_healthy": true},
        ],
    }))
    .to_core();
    let names: Vec<_> = status.models.iter().map(|model| model.id.as_str()).collect();
    assert_eq!(names, ["a", "b", "z", "c"]);
    assert_eq!(status.capabilities.len(), 1);
    assert_eq!(status.load, None, "unknown, not zero");
    assert_eq!(status.resources.total.map(|total| total.cpus), Some(8.0));
    let unclear = json!({"health": "so-so", "capabilities": [], "engines": []});
    assert_eq!(self::status(unclear).to_core().health, Health::Unhealthy);
}

#[test]
fn names_may_be_local_or_canonical_and_several_may_mean_one_model() {
    let status = status(json!({
        "health": "healthy", "capabilities": [],
        "engines": [{"engine_type": "x", "is_healthy": true, "loaded_models": ["one", "l2"]}],
        "model_aliases": {"one": "l1", "two": "l2", "zwei": "l2", "unused": "l3"},
    }))
    .to_core();
    let names: Vec<_> =
        status.models.iter().map(|model| (model.id.as_str(), model.local_name().as_str())).collect();
    assert_eq!(names, [("one", "l1"), ("two", "l2"), ("zwei", "l2")]);
}

#[test]
fn models_of_an_engine_that_is_not_healthy_do_not_serve() {
    let status = status(json!({
        "health": "degraded", "capabilities": [],
        "engines": [{"engine_type": "x", "is_healthy": false, "loaded_models": ["a"], "error": "no GPU",
                     "available_models": [{"id": "b", "name": "b"}]}],
    }))
    .to_core();
    let failed = ModelState::Failed { message: Some("no GPU".to_owned()) };
    assert!(status.models.len() == 2 && status.models.iter().all(|model| model.state == failed));
}

#[test]
fn gateway_messages_have_their_shipped_form() {
    let cases = [
        (
            GatewayMessage::RegisterAck { runner_id: "r".into(), tunnel: None },
            json!({"type": "register_ack", "runner_id": "r"}),
        ),
        (
            GatewayMessage::RegisterAck {
                runner_id: "r".into(),
                tunnel: Some(TunnelGrant { version: 1, max_streams: 8 }),
            },
            json!({"type": "register_ack", "runner_id": "r", "tunnel": {"version": 1, "max_streams": 8}}),
        ),
        (
            GatewayMessage::LoadModel { model_id: "m".into(), request_id: "q".into() },
            json!({"type": "load_model", "model_id": "m", "request_id": "q"}),
        ),
        (
            GatewayMessage::UnloadModel { model_id: "m".into(), request_id: "q".into() },
            json!({"type": "unload_model", "model_id": "m", "request_id": "q"}),
        ),
        (
            GatewayMessage::RequestStatus { request_id: "q".into() },
            json!({"type": "request_status", "request_id": "q"}),
        ),
        (GatewayMessage::Ping { timestamp: -1 }, json!({"type": "ping", "timestamp": -1})),
        (
            GatewayMessage::Error { code: "TIMEOUT".into(), message: "x".into() },
            json!({"type": "error", "code": "TIMEOUT", "message": "x"}),
        ),
    ];
    for (message, text) in cases {
        assert_eq!(serde_json::from_str::<Value>(&message.to_text()).unwrap(), text);
        assert_eq!(GatewayMessage::parse(&text.to_string()).unwrap(), message);
    }
    let welcome = GatewayMessage::parse(r#"{"type":"welcome","runner_id":"r","server":"old"}"#).unwrap();
    assert_eq!(welcome, GatewayMessage::RegisterAck { runner_id: "r".into(), tunnel: None });
}

#[test]
fn absent_optionals_are_null_except_reasoning_metadata_and_ours() {
    let core = gateway_core::RunnerStatus {
        health: Health::Healthy,
        models: vec![Model::loaded(id("a")).with_local_name(id("a:7b"))],
        capabilities: vec![CapabilityReport {
            capability: Capability::FastChat,
            model: Some(id("a")),
            state: ModelState::Loaded,
        }],
        ..Default::default()
    };
    let spec = RunnerSpec::new(RunnerId::new("r").unwrap());
    let register = Register::new(&spec, "t", 8080, None, RunnerStatus::from_core(&core, "llama_cpp"));
    let text: Value = serde_json::from_str(&RunnerMessage::Register(Box::new(register)).to_text()).unwrap();
    assert_eq!(
        text,
        json!({
            "type": "register", "runner_id": "r", "runner_name": "r", "machine_type": null, "http_port": 8080,
            "protocol_version": 1, "auth_token": "t", "mac_address": null,
            "status": {
                "health": "healthy",
                "capabilities": [{"capability": "fast_chat", "status": {"status": "loaded"}, "model_id": "a:7b",
                                  "active_requests": 0, "avg_latency_ms": null}],
                "engines": [{"engine_type": "llama_cpp", "is_healthy": true, "version": null,
                             "loaded_models": ["a:7b"],
                             "available_models": [{"id": "a:7b", "name": "a", "size_bytes": null,
                                                   "parameter_count": null, "context_length": null,
                                                   "quantization": null, "modified_at": null}],
                             "error": null, "batch_size": 1}],
                "metrics": null,
                "model_aliases": {"a": "a:7b"},
            },
        })
    );
    let response = CommandResponse { request_id: "q".into(), success: true, error: None, status: None };
    let text = RunnerMessage::CommandResponse(response).to_text();
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap(),
        json!({"type": "command_response", "request_id": "q", "success": true, "error": null, "status": null})
    );
}

#[test]
fn our_extensions_are_written_when_there_is_something_to_say() {
    let spec = RunnerSpec::new(RunnerId::new("r").unwrap()).slots(8).label("zone", "eu");
    let tunnel = TunnelRequest { version: 1, max_streams: 8 };
    let register = Register::new(&spec, "t", 8080, Some(tunnel), RunnerStatus::default());
    let text = RunnerMessage::Register(Box::new(register.clone())).to_text();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["slots"], 8);
    assert_eq!(value["labels"], json!({"zone": "eu"}));
    assert_eq!(value["tunnel"], json!({"version": 1, "max_streams": 8}));
    let read = register.spec().unwrap();
    assert_eq!((read.slots, &read.labels), (spec.slots, &spec.labels));
}

fn any_state() -> impl Strategy<Value = ModelState> {
    prop_oneof![
        Just(ModelState::Available),
        Just(ModelState::OnDemand),
        Just(ModelState::Loaded),
        Just(ModelState::Unloading),
        prop::option::of(0.0_f32..=1.0).prop_map(|progress| ModelState::Loading { progress }),
        prop::option::of("[a-z]{1,9}").prop_map(|message| ModelState::Failed { message }),
    ]
}

fn any_status() -> impl Strategy<Value = gateway_core::RunnerStatus> {
    let models = prop::collection::btree_map(
        "[a-m]{1,6}",
        (any_state(), prop::option::of(any::<u32>()), prop::option::of(0_i64..9_000_000_000), any::<bool>()),
        0..6,
    );
    let load = prop::option::of((any::<u32>(), any::<u32>()));
    (models, load, any::<bool>()).prop_map(|(models, load, healthy)| gateway_core::RunnerStatus {
        health: if healthy { Health::Healthy } else { Health::Degraded },
        models: models
            .into_iter()
            .map(|(name, (state, context_length, created, renamed))| {
                let mut model = Model::new(id(&name), state);
                model.context_length = context_length;
                model.created = created;
                if renamed { model.with_local_name(id(&format!("{name}:local"))) } else { model }
            })
            .collect(),
        load: load.map(|(active, queued)| gateway_core::ReportedLoad { active, queued }),
        ..Default::default()
    })
}

proptest! {
    #[test]
    fn a_status_survives_the_wire(status in any_status()) {
        let wire = RunnerMessage::Heartbeat(RunnerStatus::from_core(&status, "x"));
        let RunnerMessage::Heartbeat(read) = RunnerMessage::parse(&wire.to_text()).unwrap() else { panic!() };
        prop_assert_eq!(RunnerMessage::Heartbeat(read.clone()).to_text(), wire.to_text());
        let mut core = read.to_core();
        core.models.sort_by(|a, b| a.id.cmp(&b.id));
        prop_assert_eq!(core.models, status.models);
        prop_assert_eq!(core.health, status.health);
        prop_assert_eq!(core.load, status.load);
    }

    #[test]
    fn arbitrary_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = RunnerMessage::parse(&text);
        let _ = GatewayMessage::parse(&text);
    }

    #[test]
    fn a_registration_with_something_else_in_one_place_is_read_without_panic(
        place in prop::sample::select(vec![
            "/runner_id", "/http_port", "/status", "/status/health", "/status/capabilities", "/status/engines",
            "/status/capabilities/0", "/status/capabilities/0/status", "/status/capabilities/0/model_id",
            "/status/engines/0", "/status/engines/0/loaded_models", "/status/engines/0/available_models",
            "/status/engines/0/available_models/0", "/status/model_aliases", "/status/metrics", "/type",
        ]),
        other in prop_oneof![
            Just(json!(null)), Just(json!([])), Just(json!({})), Just(json!("\u{0}")), Just(json!(-1)),
            Just(json!(1e300)), Just(json!([[[]]])), Just(json!(true)), Just(json!({"a": "a", "b": ""})),
        ],
    ) {
        let mut message = full();
        *message.pointer_mut(place).unwrap() = other;
        if let Ok(RunnerMessage::Register(register)) = RunnerMessage::parse(&message.to_string()) {
            let _ = register.spec();
            let _ = register.status.to_core();
        }
    }
}
