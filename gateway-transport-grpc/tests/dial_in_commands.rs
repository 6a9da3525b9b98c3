//! Load, unload and status over gRPC: asked by the gateway, answered by a runner.

mod dial_in_support;

use std::sync::Arc;
use std::time::Duration;

use dial_in_support::client::{Client, Say, Told, status};
use dial_in_support::{Engine, Gateway, Network, agent, run, soon};
use gateway_core::{Command, ModelId, Registry, RunnerLink};
use gateway_transport_grpc::proto::runner_gateway::CommandResult;
use tokio::time::Instant;

fn load(model: &str) -> Command {
    Command::LoadModel(ModelId::new(model).unwrap())
}

async fn joined() -> (Gateway, Client, Arc<dyn RunnerLink>) {
    let gateway = Gateway::default().await;
    let client = gateway.join("r1").await;
    let link = gateway.joined("r1").await.link().clone();
    (gateway, client, link)
}

#[tokio::test(start_paused = true)]
async fn a_load_is_answered_after_the_fleet_has_changed() {
    let (gateway, mut client, link) = joined().await;
    let asked = tokio::spawn(async move { link.command(load("b")).await });
    let Told::LoadModel(command) = client.next().await else { panic!("no command") };
    assert_eq!(command.model, "b");
    let request_id = command.request_id;
    client
        .say(Say::CommandResult(CommandResult { request_id, error: None, status: Some(status(&["a", "b"])) }))
        .await;
    let reply = soon(asked).await.unwrap().unwrap();
    assert_eq!((reply.result, reply.status.unwrap().models.len()), (Ok(()), 2));
    assert!(gateway.registry.fleet().model("b").is_some(), "the fleet knew before the answer");
}

#[tokio::test(start_paused = true)]
async fn a_runner_may_say_no_or_nothing() {
    let (_gateway, mut client, link) = joined().await;
    let unload = Command::UnloadModel(ModelId::new("a").unwrap());
    let asked = tokio::spawn({
        let link = link.clone();
        async move { link.command(unload).await }
    });
    let Told::UnloadModel(command) = client.next().await else { panic!("no command") };
    let request_id = command.request_id;
    let error = Some("it is in use".to_owned());
    client.say(Say::CommandResult(CommandResult { request_id, error, status: None })).await;
    assert_eq!(soon(asked).await.unwrap().unwrap().result, Err("it is in use".to_owned()));
    let began = Instant::now();
    assert!(link.command(Command::Status).await.unwrap_err().is_timeout());
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    let Told::RequestStatus(_) = client.next().await else { panic!("no command") };
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_runner_that_goes_is_told() {
    let (_gateway, mut client, link) = joined().await;
    let asked = tokio::spawn(async move { link.command(load("b")).await });
    let Told::LoadModel(_) = client.next().await else { panic!("no command") };
    drop(client);
    assert!(soon(asked).await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn the_agent_carries_them_out() {
    let gateway = Gateway::default().await;
    let network = Network::default();
    let _hosted = network.host("gw", &gateway);
    let engine = Engine::answering(|_| async { unreachable!() });
    let _agent = run(agent(&network, &["gw"], engine.clone(), 2));
    let link = gateway.joined("gpu-1").await.link().clone();
    assert_eq!(gateway.runner("gpu-1").unwrap().spec().slots.unwrap().get(), 2);
    let reply = soon(link.command(load("b"))).await.unwrap();
    assert_eq!(reply.result, Err("the test says no".to_owned()));
    assert_eq!(*engine.commands.lock().unwrap(), [load("b")]);
    *engine.model.lock().unwrap() = "other";
    let reply = soon(link.command(Command::Status)).await.unwrap();
    assert_eq!(reply.status.unwrap().models[0].id.as_str(), "other");
    assert!(gateway.registry.fleet().model("other").is_some(), "the fleet knew before the answer");
}
