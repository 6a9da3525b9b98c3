//! What admins see and do: the list, commands, draining.

mod common;

use common::*;
use gateway_core::{
    Command, CommandReply, Health, LinkError, Model, ModelState, ReportedLoad, Requirements, RunnerId,
    RunnerSpec, RunnerStatus,
};
use serde_json::json;

fn status() -> RunnerStatus {
    let models = vec![Model::loaded(model("a")), Model::new(model("b"), ModelState::Available)];
    let load = Some(ReportedLoad { active: 2, queued: 1 });
    RunnerStatus { health: Health::Degraded, models, load, ..RunnerStatus::default() }
}

#[tokio::test]
async fn the_list_has_the_fields_of_existing_gateways() {
    let gateway = builder().build().unwrap();
    let mut spec =
        RunnerSpec::new(RunnerId::new("r1").unwrap()).name("Big one").machine("gpu-server").slots(4);
    spec.machine.mac_address = Some("AA:BB:CC:DD:EE:FF".into());
    join_with(&gateway, spec, status(), &Mock::ok());
    join(&gateway, "r2", &[], &Mock::ok());
    for path in ["/runners", "/admin/runners"] {
        let list = whole(&gateway, as_admin(get(path))).await.json();
        assert_eq!(list["total"], 2);
        let mut runner = list["runners"][0].clone();
        for moment in ["connected_at", "last_heartbeat"] {
            let text = runner.as_object_mut().unwrap().remove(moment).unwrap();
            let text = text.as_str().unwrap();
            assert!(text.starts_with("20") && text.ends_with('Z') && text.len() == 24, "{text}");
        }
        assert_eq!(
            runner,
            json!({
                "id": "r1", "name": "Big one", "machine_type": "gpu-server", "health": "degraded",
                "loaded_models": ["a"], "available_models": ["a", "b"], "http_base_url": "http://192.0.2.7:1",
                "mac_address": "AA:BB:CC:DD:EE:FF", "is_online": true, "generation": 1, "transport": "mock",
                "labels": {},
            "lacks": [], "draining": false, "standing": "good", "in_flight": 0, "slots": 4, "foreign_requests": 3,
            })
        );
        assert!(list["runners"][1]["last_heartbeat"].is_string(), "to join is to be heard");
        assert_eq!(list["runners"][1]["foreign_requests"], json!(null));
    }
}

#[tokio::test]
async fn commands_reach_the_runner_and_its_fresh_status_counts_at_once() {
    let link = Mock::ok();
    let gateway = builder().lifecycle(gateway_core::LifecyclePolicy::off()).build().unwrap();
    join_with(&gateway, RunnerSpec::new(RunnerId::new("host:1/x").unwrap()), status(), &link);
    assert_eq!(whole(&gateway, chat(r#"{"model":"b"}"#)).await.status, 503);

    let fresh = RunnerStatus::serving([model("a"), model("b")]);
    link.replies.lock().unwrap().push_back(Ok(CommandReply { result: Ok(()), status: Some(fresh) }));
    let path = "/admin/runners/host:1%2Fx/load-model";
    let answer = whole(&gateway, as_admin(post(path, r#"{"model_id":"b"}"#))).await;
    assert_eq!((answer.status, answer.json()["success"].clone()), (200, json!(true)));
    assert!(answer.json()["message"].as_str().unwrap().contains("`b`"));
    assert_eq!(whole(&gateway, chat(r#"{"model":"b"}"#)).await.status, 200);

    link.replies.lock().unwrap().push_back(Ok(CommandReply { result: Ok(()), status: None }));
    let path = "/admin/runners/host:1/x/unload-model";
    assert_eq!(whole(&gateway, as_admin(post(path, r#"{"model_id":"a"}"#))).await.status, 200);
    let commands = link.commands.lock().unwrap().clone();
    assert_eq!(commands, [Command::LoadModel(model("b")), Command::UnloadModel(model("a"))]);
}

#[tokio::test]
async fn a_runner_that_is_not_operational_can_be_asked_how_it_is() {
    let link = Mock::ok();
    let gateway = builder().build().unwrap();
    let ill = RunnerStatus { health: Health::Unhealthy, ..RunnerStatus::default() };
    join_with(&gateway, RunnerSpec::new(RunnerId::new("r1").unwrap()), ill, &link);
    let well = RunnerStatus::serving([model("m")]);
    link.replies.lock().unwrap().push_back(Ok(CommandReply { result: Ok(()), status: Some(well) }));
    let answer = whole(&gateway, as_admin(post("/admin/runners/r1/request-status", ""))).await;
    assert_eq!((answer.status, answer.json()["success"].clone()), (200, json!(true)));
    assert_eq!(link.commands.lock().unwrap().clone(), [Command::Status]);
    assert_eq!(whole(&gateway, chat(r#"{"model":"m"}"#)).await.status, 200);
}

#[tokio::test]
async fn commands_that_fail_say_why() {
    let link = Mock::ok();
    let gateway = with_runner(&link);
    let load = || as_admin(post("/admin/runners/r1/load-model", r#"{"model_id":"x"}"#));
    let refused = CommandReply { result: Err("not enough memory".into()), status: None };
    for (reply, status, words) in [
        (Ok(refused), 502, "not enough memory"),
        (Err(LinkError::timed_out("load_model")), 504, "in time"),
        (Err(LinkError::unsupported("load_model")), 501, "support"),
        (Err(LinkError::lost("gone")), 502, "gone"),
    ] {
        link.replies.lock().unwrap().push_back(reply);
        let answer = whole(&gateway, load()).await;
        assert_eq!((answer.status, &answer.json()["success"]), (status, &json!(false)));
        assert!(answer.json()["message"].as_str().unwrap().contains(words), "{answer:?}");
    }
}

#[tokio::test]
async fn commands_need_a_runner_that_is_there_and_operational_and_a_model() {
    let link = Mock::ok();
    let gateway = builder().build().unwrap();
    let ill = RunnerStatus { health: Health::Unhealthy, ..RunnerStatus::default() };
    join_with(&gateway, RunnerSpec::new(RunnerId::new("ill").unwrap()), ill, &link);
    for (path, body, status) in [
        ("/admin/runners/nobody/load-model", r#"{"model_id":"x"}"#, 404),
        ("/admin/runners/nobody/drain", "", 404),
        ("/admin/runners/ill/load-model", r#"{"model_id":"x"}"#, 400),
        ("/admin/runners/ill/unload-model", r#"{"model_id":"x"}"#, 400),
        ("/admin/runners/ill/load-model", r#"{"model":"x"}"#, 400),
        ("/admin/runners/ill/load-model", r#"{"model_id":""}"#, 400),
        ("/admin/runners/ill/load-model", "", 400),
    ] {
        let answer = whole(&gateway, as_admin(post(path, body))).await;
        assert_eq!(answer.status, status, "{path} {body}");
    }
    let large = vec![b' '; 70_000];
    let answer = whole(&gateway, as_admin(post("/admin/runners/ill/load-model", large))).await;
    assert_eq!(answer.status, 413);
    assert!(link.commands.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_runner_can_be_drained_and_taken_back() {
    let link = Mock::ok();
    let gateway = with_runner(&link);
    let drain = |body: &'static str| as_admin(post("/admin/runners/r1/drain", body));
    let serves = async || whole(&gateway, chat(r#"{"model":"m"}"#)).await.status;
    for (body, status) in [("", 503), (r#"{"drain":false}"#, 200), (r#"{"drain":true}"#, 503)] {
        assert_eq!(whole(&gateway, drain(body)).await.status, 200);
        assert_eq!(serves().await, status, "{body}");
    }
    assert_eq!(whole(&gateway, drain("yes")).await.status, 400);
}

#[tokio::test]
async fn a_model_in_use_is_not_unloaded_unless_it_is_forced() {
    let link = Mock::ok();
    let gateway = with_runner(&link);
    let runner = gateway.dispatcher().registry().fleet().runner("r1").unwrap().clone();
    let held = runner.try_reserve_for(&Requirements::model(model("m"))).unwrap();
    let unload = async |body: &'static str| {
        whole(&gateway, as_admin(post("/admin/runners/r1/unload-model", body))).await
    };
    let answer = unload(r#"{"model_id":"m"}"#).await;
    assert_eq!((answer.status, &answer.json()["success"]), (409, &json!(false)));
    assert!(answer.json()["message"].as_str().unwrap().contains("in use"), "{answer:?}");
    assert!(link.commands.lock().unwrap().is_empty());
    assert_eq!(whole(&gateway, chat(r#"{"model":"m"}"#)).await.status, 200);

    let done = CommandReply { result: Ok(()), status: None };
    link.replies.lock().unwrap().extend([Ok(done.clone()), Ok(done)]);
    assert_eq!(unload(r#"{"model_id":"m","force":true}"#).await.status, 200);
    assert_eq!(link.commands.lock().unwrap().clone(), [Command::UnloadModel(model("m"))]);
    assert!(runner.try_reserve_for(&Requirements::model(model("m"))).is_none(), "nothing new is sent to it");
    drop(held);
}
