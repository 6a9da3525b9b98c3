//! Load, unload and status: asked, answered, and not answered.

mod support;

use std::sync::Arc;
use std::time::Duration;

use gateway_core::{Command, ModelId, Registry, Runner};
use gateway_transport_ws::WsRunners;
use serde_json::{Value, json};
use support::{Client, Gateway, register, soon, status};
use tokio::time::Instant;

async fn joined(gateway: &Gateway) -> (Client, Arc<Runner>) {
    let client = gateway.join(register("r1")).await;
    gateway.until(|fleet| fleet.runner("r1").is_some()).await;
    let runner = gateway.runner("r1").unwrap();
    (client, runner)
}

fn load(model: &str) -> Command {
    Command::LoadModel(ModelId::new(model).unwrap())
}

fn response(command: &Value, fields: Value) -> Value {
    let mut response = fields;
    response["type"] = "command_response".into();
    response["request_id"] = command["request_id"].clone();
    response
}

#[tokio::test(start_paused = true)]
async fn load_model_is_answered_after_the_fleet_has_changed() {
    let gateway = Gateway::default().await;
    let (mut client, runner) = joined(&gateway).await;
    let link = runner.link().clone();
    let asked = tokio::spawn(async move { link.command(load("b")).await });
    let command = client.recv().await.unwrap();
    assert_eq!((&command["type"], &command["model_id"]), (&json!("load_model"), &json!("b")));
    // Loading takes longer than any other command may.
    tokio::time::sleep(Duration::from_secs(80)).await;
    client.send(json!({"type": "news"})).await;
    tokio::time::sleep(Duration::from_secs(80)).await;
    client
        .send(response(&command, json!({"success": true, "error": null, "status": status(&["a", "b"])})))
        .await;
    let reply = soon(asked).await.unwrap().unwrap();
    assert_eq!(reply.result, Ok(()));
    assert_eq!(reply.status.unwrap().models.len(), 2);
    assert!(gateway.registry.fleet().model("b").is_some(), "the fleet knew before the answer");
}

#[tokio::test(start_paused = true)]
async fn a_runner_may_say_no() {
    let gateway = Gateway::default().await;
    let (mut client, runner) = joined(&gateway).await;
    let link = runner.link().clone();
    let unload = Command::UnloadModel(ModelId::new("a").unwrap());
    let asked = tokio::spawn(async move { link.command(unload).await });
    let command = client.recv().await.unwrap();
    assert_eq!(command["type"], "unload_model");
    client.send(response(&command, json!({"success": false, "error": "it is busy"}))).await;
    let reply = soon(asked).await.unwrap().unwrap();
    assert_eq!((reply.result, reply.status), (Err("it is busy".to_owned()), None));
}

#[tokio::test(start_paused = true)]
async fn answers_find_their_commands_in_any_order() {
    let gateway = Gateway::default().await;
    let (mut client, runner) = joined(&gateway).await;
    let ask = |command: Command| {
        let link = runner.link().clone();
        tokio::spawn(async move { link.command(command).await.unwrap().result })
    };
    let (first, second) = (ask(Command::Status), ask(Command::Status));
    let (one, two) = (client.recv().await.unwrap(), client.recv().await.unwrap());
    assert_eq!(one["type"], "request_status");
    client.send(json!({"type": "command_response", "request_id": "nobody's", "success": true})).await;
    client.send(response(&two, json!({"success": false, "error": "two"}))).await;
    client.send(response(&one, json!({"success": false, "error": "one"}))).await;
    let mut results = [first.await.unwrap().unwrap_err(), second.await.unwrap().unwrap_err()];
    results.sort();
    assert_eq!(results, ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn every_command_has_its_deadline() {
    let runners = WsRunners::builder()
        .auth_token("secret")
        .command_timeout(Duration::from_secs(40))
        .status_timeout(Duration::from_secs(4));
    let gateway = Gateway::start(runners.build()).await;
    let (_client, runner) = joined(&gateway).await;
    for (command, limit) in [(Command::Status, 4), (load("b"), 40)] {
        let began = Instant::now();
        let error = runner.link().command(command).await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert_eq!(began.elapsed().as_secs(), limit);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_connection_is_an_answer() {
    let gateway = Gateway::default().await;
    let (mut client, runner) = joined(&gateway).await;
    let link = runner.link().clone();
    let asked = tokio::spawn(async move { link.command(load("b")).await });
    client.recv().await.unwrap();
    drop(client);
    let began = Instant::now();
    let error = soon(asked).await.unwrap().unwrap_err();
    assert!(!error.is_timeout() && !error.is_not_sent(), "{error}");
    assert!(began.elapsed() < Duration::from_secs(1));
    let error = runner.link().command(Command::Status).await.unwrap_err();
    assert!(error.is_not_sent(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn only_so_many_wait() {
    let gateway = Gateway::default().await;
    let (mut client, runner) = joined(&gateway).await;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let link = runner.link().clone();
        asked.spawn(async move { link.command(Command::Status).await.map(|_| ()) });
    }
    for _ in 0..64 {
        client.recv_type("request_status").await;
    }
    let error = runner.link().command(Command::Status).await.unwrap_err();
    assert!(error.is_not_sent(), "{error}");
    // One who no longer waits makes room.
    asked.abort_all();
    while asked.join_next().await.is_some() {}
    let link = runner.link().clone();
    let again = tokio::spawn(async move { link.command(Command::Status).await });
    let command = client.recv_type("request_status").await;
    client.send(response(&command, json!({"success": true}))).await;
    assert!(soon(again).await.unwrap().is_ok());
}
