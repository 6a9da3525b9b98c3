//! The other services, and all of them on one port.

mod server_support;

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use gateway_core::{Command, ModelId, ModelState, RunnerId, RunnerSpec, RunnerStatus};
use gateway_testkit::{Fault, MockEngine, Script, Seen};
use gateway_transport_grpc::proto::ai_inference as plain;
use gateway_transport_grpc::proto::ai_inference::ai_inference_client::AiInferenceClient as PlainClient;
use gateway_transport_grpc::proto::cy_llm::ai_inference_client::AiInferenceClient;
use gateway_transport_grpc::proto::cy_llm::{ControlMessage, WorkerHealthRequest};
use gateway_transport_grpc::{GrpcServer, GrpcServerError};
use http::Request;
use http_body_util::{BodyExt, Full};
use server_support::*;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::{v1, v1alpha};
use tower_service::Service;

fn command(command: &str, payload: &[(&str, &str)]) -> ControlMessage {
    let payload = payload.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ControlMessage { trace_id: "t".into(), command: command.into(), payload }
}

async fn control(
    server: &GrpcServer,
    token: &str,
    asked: ControlMessage,
) -> Result<HashMap<String, String>, Code> {
    let name = asked.command.clone();
    let answer = AiInferenceClient::new(server.clone()).control(with_token(asked, token)).await;
    let answer = answer.map_err(|status| status.code())?.into_inner();
    assert_eq!((answer.command, answer.trace_id), (format!("{name}_response"), "t".to_owned()));
    Ok(answer.payload)
}

#[tokio::test]
async fn control_does_what_the_caller_may() {
    let engine = words(&["a"]);
    let (gateway, server) = serve(&engine);
    let models = control(&server, CLIENT, command("list_models", &[])).await.unwrap();
    assert_eq!((models["status"].as_str(), models["models"].as_str()), ("ok", "m"));
    let pong = control(&server, CLIENT, command("ping", &[])).await.unwrap();
    assert_eq!((pong["status"].as_str(), pong["message"].as_str()), ("ok", "pong"));
    for name in ["list_models", "ping", "unload_model"] {
        let refused = control(&server, "wrong", command(name, &[("model_id", "m")])).await;
        assert_eq!(refused, Err(Code::Unauthenticated), "{name}");
    }
    let unknown = control(&server, CLIENT, command("dance", &[])).await.unwrap();
    assert_eq!(unknown["status"], "error");
    assert!(unknown["message"].contains("list_models"), "{unknown:?}");

    let model = ModelId::new("m").unwrap();
    assert_eq!(
        control(&server, CLIENT, command("unload_model", &[("model_id", "m")])).await,
        Err(Code::Unauthenticated)
    );
    assert!(engine.commands().is_empty(), "a client is no admin");
    let nameless = control(&server, ADMIN, command("unload_model", &[])).await.unwrap();
    assert_eq!(nameless["status"], "error");
    join(&gateway, "r/2", 1, &engine);
    // What it says of itself after a command.
    engine.set_status(RunnerStatus::serving([model.clone()]));
    let unloaded = control(&server, ADMIN, command("unload_model", &[("model_id", "m")])).await.unwrap();
    assert_eq!((unloaded["status"].as_str(), unloaded["runners"].as_str()), ("ok", "r/2,r1"), "{unloaded:?}");
    assert_eq!(engine.commands(), [Command::UnloadModel(model.clone()), Command::UnloadModel(model.clone())]);
    let none = control(&server, ADMIN, command("load_model", &[("model_id", "x")])).await.unwrap();
    assert_eq!(none["status"], "error");
    assert!(none["message"].contains("`x`"), "{none:?}");
    let nobody =
        control(&server, ADMIN, command("load_model", &[("model_id", "m"), ("runner", "no")])).await.unwrap();
    assert_eq!(nobody["status"], "error");
}

#[tokio::test]
async fn a_model_is_loaded_where_it_is_on_disk() {
    let engine = words(&["a"]);
    let (gateway, server) = serve(&engine);
    let model = ModelId::new("on-disk").unwrap();
    let mut status = RunnerStatus::serving([model.clone()]);
    engine.set_status(status.clone());
    status.models[0].state = ModelState::Available;
    let spec = RunnerSpec::new(RunnerId::new("r2").unwrap());
    gateway.dispatcher().registry().join(spec, status, engine.link());
    let load = || control(&server, ADMIN, command("load_model", &[("model_id", "on-disk")]));
    let loaded = load().await.unwrap();
    assert_eq!((loaded["status"].as_str(), loaded["runners"].as_str()), ("ok", "r2"), "{loaded:?}");
    let again = load().await.unwrap();
    assert_eq!((again["status"].as_str(), again["runners"].as_str()), ("ok", "r2"), "{again:?}");
    assert_eq!(engine.commands(), [Command::LoadModel(model)], "what is loaded is not loaded again");
}

#[tokio::test]
async fn health_tells_of_the_fleet_without_credentials() {
    let engine = MockEngine::new(|seen: &Seen| match seen.body.windows(5).any(|at| at == b"stall") {
        true => sse(&["a"]).fault(Fault::StallAfter(1)),
        false => sse(&["a"]),
    });
    let (gateway, _) = serve(&engine);
    let registry = gateway.dispatcher().registry().clone();
    let server = GrpcServer::builder(gateway.clone()).registry(registry).build().unwrap();
    all(predict(&server, vec![asked("1"), asked("2")]).await.unwrap()).await;
    failure(&server, gateway_transport_grpc::proto::cy_llm::StreamPredictRequest::default()).await;
    let mut at_work = predict(&server, vec![asked("stall")]).await.unwrap();
    at_work.message().await.unwrap();

    let mut client = AiInferenceClient::new(server.clone());
    let health = client.health(WorkerHealthRequest::default()).await.unwrap().into_inner();
    assert!(health.healthy);
    let get = |key: &str| health.metrics.get(key).map(String::as_str);
    assert_eq!(get("requests_inflight"), Some("1"));
    assert_eq!(get("requests_success"), Some("2"));
    assert_eq!(get("requests_failed"), Some("1"));
    assert_eq!((get("runners"), get("models")), (Some("1"), Some("1")));
    assert_eq!(get("backend"), Some("inference-gateway"));
    assert!(get("version").is_some());

    drop(at_work);
    gateway.shutdown(Duration::ZERO).await;
    let health =
        PlainClient::new(server).health(plain::WorkerHealthRequest::default()).await.unwrap().into_inner();
    assert!(!health.healthy);
    assert_eq!(health.metrics["runners"], "0");
}

#[tokio::test(start_paused = true)]
async fn the_standard_health_follows_the_gateway() {
    let (gateway, server) = serve(&words(&["a"]));
    let mut client = HealthClient::new(server.clone());
    let request = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", "cy.llm.AiInference", "AiInference", "grpc.reflection.v1.ServerReflection"] {
        let status = client.check(request(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
    assert_eq!(client.check(request("other")).await.expect_err("unknown").code(), Code::NotFound);

    let mut watch = client.watch(request("")).await.unwrap().into_inner();
    let mut unknown = client.watch(request("other")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert_eq!(unknown.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    gateway.shutdown(Duration::ZERO).await;
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(client.check(request("")).await.unwrap().into_inner().status(), ServingStatus::NotServing);
    server.close();
    assert!(watch.message().await.unwrap().is_none() && unknown.message().await.unwrap().is_none());
}

#[tokio::test]
async fn close_ends_what_waits_and_lets_answers_end() {
    let (feed, script) = Script::fed();
    let script = std::sync::Mutex::new(Some(script.header(http::header::CONTENT_TYPE, "text/event-stream")));
    let engine = MockEngine::new(move |_: &Seen| script.lock().unwrap().take().unwrap());
    let (_gateway, server) = serve(&engine);
    let mut client = AiInferenceClient::new(server.clone());
    let mut idle = client.stream_predict(as_client(tokio_stream::pending())).await.unwrap().into_inner();
    let mut busy = predict(&server, vec![asked("1")]).await.unwrap();
    assert!(feed.send("data: {\"choices\":[{\"text\":\"a\"}]}\n\n").await);
    assert_eq!(busy.message().await.unwrap().unwrap().chunk, "a");
    server.close();
    assert_eq!(idle.message().await.expect_err("closed").code(), Code::Unavailable);
    assert!(feed.send("data: {\"choices\":[{\"text\":\"b\"}]}\n\ndata: [DONE]\n\n").await);
    drop(feed);
    let (messages, status) = all(busy).await;
    assert_eq!((text(&messages), status.is_none()), ("b".to_owned(), true));
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    let (gateway, server) = serve(&words(&["a"]));
    let wanted = ["AiInference", "cy.llm.AiInference", "grpc.health.v1.Health"];
    let list = |message_request| v1::ServerReflectionRequest { host: String::new(), message_request };
    let requests = tokio_stream::iter([
        list(Some(MessageRequest::ListServices(String::new()))),
        list(Some(MessageRequest::FileContainingSymbol("cy.llm.AiInference".into()))),
        list(Some(MessageRequest::FileContainingSymbol("AiInference".into()))),
    ]);
    let mut client = ServerReflectionClient::new(server.clone());
    let mut answers = client.server_reflection_info(requests).await.unwrap().into_inner();
    let mut next = async || answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(services) = next().await else { panic!("no list") };
    let names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    for name in wanted {
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
    for _ in 0..2 {
        assert!(matches!(next().await, MessageResponse::FileDescriptorResponse(_)));
    }

    let request = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::ListServices(String::new()),
        ),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(server);
    let mut answers =
        client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());

    let silent = GrpcServer::builder(gateway).reflection(false).build().unwrap();
    let mut client = ServerReflectionClient::new(silent);
    let request = tokio_stream::iter([list(Some(MessageRequest::ListServices(String::new())))]);
    assert_eq!(client.server_reflection_info(request).await.expect_err("off").code(), Code::Unimplemented);
}

#[tokio::test]
async fn further_services_are_served_and_told_of() {
    let (gateway, server) = serve(&words(&["a"]));
    // Any service will do that has a name of its own.
    #[derive(Clone)]
    struct Other;
    impl tonic::server::NamedService for Other {
        const NAME: &'static str = "test.Other";
    }
    impl Service<Request<tonic::body::Body>> for Other {
        type Response = http::Response<tonic::body::Body>;
        type Error = std::convert::Infallible;
        type Future = std::future::Ready<Result<Self::Response, Self::Error>>;
        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
            std::task::Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Request<tonic::body::Body>) -> Self::Future {
            std::future::ready(Ok(tonic::Status::data_loss("me").into_http()))
        }
    }
    let call = |mut server: GrpcServer, path: &'static str| async move {
        let request = Request::post(path).header("content-type", "application/grpc");
        let answer = server.call(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
        (
            answer.status().as_u16(),
            answer.headers().get("grpc-status").map(|code| code.to_str().unwrap().to_owned()),
        )
    };
    assert_eq!(call(server.clone(), "/test.Other/Do").await, (200, Some("12".to_owned())), "unimplemented");
    assert_eq!(call(server.clone(), "/cy.llm.AiInference/Dance").await, (200, Some("12".to_owned())));
    let more = GrpcServer::builder(gateway.clone()).service(Other, &[]).build().unwrap();
    assert_eq!(call(more.clone(), "/test.Other/Do").await, (200, Some("15".to_owned())));
    let check = HealthCheckRequest { service: "test.Other".into() };
    assert!(HealthClient::new(more).check(check).await.is_ok());
    let twice = GrpcServer::builder(gateway.clone()).service(Other, &[]).service(Other, &[]).build();
    assert!(matches!(twice, Err(GrpcServerError::Twice("test.Other"))));
    let broken = GrpcServer::builder(gateway).service(Other, b"\xff\xff").build();
    assert!(matches!(broken, Err(GrpcServerError::Descriptors(_))));
}

#[tokio::test]
async fn both_protocols_share_a_port() {
    let (gateway, server) = serve(&words(&["a"]));
    let socket = Socket::serve(server.beside(gateway)).await;
    let mut connection = socket.connect().await;
    let get = Request::get("http://localhost/health").body(tonic::body::Body::empty()).unwrap();
    let answer = connection.call(get).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    let requests = tokio_stream::iter([asked("1")]);
    let mut client = AiInferenceClient::new(connection);
    let answers = client.stream_predict(as_client(requests)).await.unwrap().into_inner();
    assert_eq!(text(&all(answers).await.0), "a");
}
