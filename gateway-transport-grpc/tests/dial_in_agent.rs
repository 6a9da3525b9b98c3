//! The agent over gRPC: registers, serves, comes back, drains.

mod dial_in_support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dial_in_support::played::{Call, Heard, Played, Tell};
use dial_in_support::{Engine, Gateway, Network, agent, body, next_chunk, post, run, soon, spec};
use gateway_core::{Health, LinkBody, LinkError};
use gateway_transport_grpc::dial_in::agent::{Agent, Backoff, Grpc, InvalidAgent};
use gateway_transport_grpc::proto::runner_gateway::{
    Data, End, Error, Health as OnWire, Ping, Registered, RequestHead, Reset, ResetReason, RunnerStatus,
    WindowUpdate,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::Status;

fn idle() -> Arc<Engine> {
    Engine::answering(|_| async { Ok(http::Response::new(LinkBody::full("hello"))) })
}

fn status(heard: Heard) -> Option<RunnerStatus> {
    match heard {
        Heard::Heartbeat(status) | Heard::Status(status) => Some(status),
        _ => None,
    }
}

fn head(heard: Heard) -> Option<u32> {
    if let Heard::ResponseHead(head) = heard { Some(head.status) } else { None }
}

/// The whole of an answer's body; gives credit as it reads.
async fn text(call: &mut Call, id: u64) -> Result<String, ResetReason> {
    let mut text = Vec::new();
    loop {
        match soon(call.heard()).await.expect("the call has ended") {
            Heard::ResponseBody(data) if data.stream_id == id => {
                let bytes = data.data.len() as u32;
                text.extend_from_slice(&data.data);
                call.tell(Tell::WindowUpdate(WindowUpdate { stream_id: id, bytes })).await;
            }
            Heard::ResponseEnd(end) if end.stream_id == id => return Ok(String::from_utf8(text).unwrap()),
            Heard::Reset(reset) if reset.stream_id == id => return Err(reset.reason()),
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_registers_with_all_that_it_is_and_sends_heartbeats() {
    let network = Network::default();
    let mut gateway = Played::at(&network, "gw");
    let _agent = run(agent(&network, &["gw"], idle(), 8).heartbeat_interval(Duration::from_secs(30)));
    let mut call = gateway.call().await;
    assert_eq!(call.token.as_deref(), Some("Bearer secret"));
    let register = call.register().await;
    assert_eq!((register.runner_id.as_str(), register.protocol_version), ("gpu-1", 1));
    assert_eq!((register.token.as_str(), register.slots, register.max_streams), ("secret", Some(8), Some(8)));
    assert_eq!(register.status.unwrap().models[0].id, "small");
    let registered = Registered {
        runner_id: "gpu-1".to_owned(),
        max_streams: 8,
        stream_window: 65_536,
        heartbeat_interval_ms: 7_000,
    };
    call.tell(Tell::Registered(registered)).await;
    // As often as the gateway wants.
    let began = Instant::now();
    for nth in 0..3 {
        call.until(|heard| matches!(heard, Heard::Heartbeat(_)).then_some(())).await;
        assert_eq!(began.elapsed().as_secs(), 7 * nth);
    }
    call.tell(Tell::Ping(Ping { timestamp: 1 })).await;
    call.until(|heard| matches!(heard, Heard::Status(_)).then_some(())).await;
    assert_eq!(began.elapsed().as_secs(), 14);
}

#[tokio::test(start_paused = true)]
async fn what_has_changed_is_told_at_once() {
    let network = Network::default();
    let mut gateway = Played::at(&network, "gw");
    let engine = idle();
    let _agent = run(agent(&network, &["gw"], engine.clone(), 8).status_interval(Duration::from_secs(1)));
    let (mut call, _) = gateway.registered().await;
    *engine.model.lock().unwrap() = "large";
    let began = Instant::now();
    call.until(|heard| status(heard).filter(|status| status.models[0].id == "large")).await;
    assert!(began.elapsed() <= Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn requests_are_served_and_cancelled() {
    let network = Network::default();
    let mut gateway = Played::at(&network, "gw");
    let (to_test, mut asked) = mpsc::channel::<oneshot::Receiver<()>>(4);
    let engine = Engine::answering(move |request| {
        let to_test = to_test.clone();
        async move {
            if request.uri().path() == "/wait" {
                let (_held, given_up) = oneshot::channel();
                to_test.send(given_up).await.unwrap();
                std::future::pending::<()>().await;
            }
            Ok(http::Response::new(LinkBody::full(request.uri().to_string())))
        }
    });
    let _agent = run(agent(&network, &["gw"], engine, 8));
    let (mut call, _) = gateway.registered().await;
    call.request(3, "/a?b=c").await;
    assert_eq!(call.until(head).await, 200);
    assert_eq!(text(&mut call, 3).await.unwrap(), "/a?b=c");
    call.request(7, "/wait").await;
    let given_up = soon(asked.recv()).await.unwrap();
    call.tell(Tell::Reset(Reset { stream_id: 7, ..Reset::default() })).await;
    assert!(soon(given_up).await.is_err(), "its future was dropped");
    // What the gateway had sent before it is skipped, and the call goes on.
    call.tell(Tell::RequestBody(Data { stream_id: 7, data: Bytes::from_static(b"late") })).await;
    call.request(8, "/d").await;
    assert_eq!(text(&mut call, 8).await.unwrap(), "/d");
}

#[tokio::test(start_paused = true)]
async fn an_upload_reaches_the_engine_as_it_comes() {
    let network = Network::default();
    let mut gateway = Played::at(&network, "gw");
    let (to_test, mut chunks) = mpsc::channel::<Bytes>(1);
    let engine = Engine::answering(move |request| {
        let to_test = to_test.clone();
        async move {
            let mut body =
                LinkBody::new(http_body_util::BodyExt::map_err(request.into_body(), LinkError::request_body));
            while let Some(chunk) = next_chunk(&mut body).await {
                to_test.send(chunk?).await.unwrap();
            }
            Ok(http::Response::new(LinkBody::full("")))
        }
    });
    let _agent = run(agent(&network, &["gw"], engine, 8));
    let (mut call, _) = gateway.registered().await;
    let (method, path) = ("POST".to_owned(), "/".to_owned());
    call.tell(Tell::RequestHead(RequestHead { stream_id: 1, method, path, ..Default::default() })).await;
    for word in ["one", "two"] {
        call.tell(Tell::RequestBody(Data { stream_id: 1, data: word.into() })).await;
        assert_eq!(soon(chunks.recv()).await.unwrap(), word);
    }
    call.tell(Tell::RequestEnd(End { stream_id: 1, trailers: Vec::new() })).await;
    assert_eq!(call.until(head).await, 200);
}

#[tokio::test(start_paused = true)]
async fn what_the_engine_did_wrong_is_told_as_it_was() {
    let network = Network::default();
    let mut gateway = Played::at(&network, "gw");
    let engine = Engine::answering(|request| async move {
        match request.uri().path() {
            "/unreachable" => Err(LinkError::not_sent("nobody is there")),
            "/lost" => Err(LinkError::lost("it went")),
            _ => {
                let (sender, written) = body();
                tokio::spawn(async move {
                    let _ = sender.send(Ok("begun".into())).await;
                    let _ = sender.send(Err("it went")).await;
                });
                Ok(http::Response::new(written))
            }
        }
    });
    let _agent = run(agent(&network, &["gw"], engine, 8));
    let (mut call, _) = gateway.registered().await;
    for (id, path, reason) in [
        (1, "/unreachable", ResetReason::EngineUnreachable),
        (2, "/lost", ResetReason::EngineLost),
        (3, "/breaks", ResetReason::EngineLost),
    ] {
        call.request(id, path).await;
        assert_eq!(text(&mut call, id).await, Err(reason));
    }
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_slots_are_refused_before_the_engine_sees_them() {
    let (gateway_a, gateway_b, network) =
        (Gateway::default().await, Gateway::default().await, Network::default());
    let _hosted = (network.host("a", &gateway_a), network.host("b", &gateway_b));
    let (sender, written) = body();
    let written = Mutex::new(vec![written]);
    let engine = Engine::answering(move |_| {
        let body = written.lock().unwrap().pop().expect("the engine saw one that was refused");
        async { Ok(http::Response::new(body)) }
    });
    let _agent = run(agent(&network, &["a", "b"], engine, 1));
    let (a, b) = (gateway_a.joined("gpu-1").await, gateway_b.joined("gpu-1").await);
    let mut first = soon(a.link().send(post(""))).await.unwrap();
    // The second gateway sees a runner with a free slot and a free stream.
    let refused = soon(b.link().send(post(""))).await.unwrap();
    assert_eq!(refused.status(), http::StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "1");
    sender.send(Ok("one".into())).await.unwrap();
    assert_eq!(soon(next_chunk(first.body_mut())).await.unwrap().unwrap(), "one");
}

#[tokio::test(start_paused = true)]
async fn it_drains() {
    let (gateway, network) = (Gateway::default().await, Network::default());
    let _hosted = network.host("gw", &gateway);
    let (sender, written) = body();
    let written = Mutex::new(vec![written]);
    let engine = Engine::answering(move |_| {
        let body = written.lock().unwrap().pop().expect("the engine saw one that was refused");
        async { Ok(http::Response::new(body)) }
    });
    let agent = run(agent(&network, &["gw"], engine, 8));
    let runner = gateway.joined("gpu-1").await;
    let mut answer = soon(runner.link().send(post(""))).await.unwrap();
    agent.stop.cancel();
    let leaves = |fleet: &gateway_core::Fleet| {
        fleet.runner("gpu-1").is_some_and(|runner| runner.status().health == Health::ShuttingDown)
    };
    soon(gateway.until(leaves)).await;
    let refused = soon(runner.link().send(post(""))).await.unwrap();
    assert_eq!(refused.status(), http::StatusCode::SERVICE_UNAVAILABLE);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(agent.is_running());
    sender.send(Ok("the last".into())).await.unwrap();
    drop(sender);
    // A slow reader gets all of it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(soon(next_chunk(answer.body_mut())).await.unwrap().unwrap(), "the last");
    assert!(soon(next_chunk(answer.body_mut())).await.is_none());
    let began = Instant::now();
    soon(agent.returned()).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    soon(gateway.until(|fleet| fleet.runners().is_empty())).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stalls_holds_it_up_no_longer_than_the_drain_timeout() {
    let network = Network::default();
    let mut gateway = Played::at(&network, "gw");
    let engine =
        Engine::answering(|_| async { Ok(http::Response::new(LinkBody::full(vec![b'x'; 100_000]))) });
    let agent = run(agent(&network, &["gw"], engine, 8).drain_timeout(Duration::from_secs(9)));
    let (mut call, _) = gateway.registered().await;
    call.request(1, "/").await;
    call.until(head).await;
    let began = Instant::now();
    agent.stop.cancel();
    let mut got = 0;
    let mut leaving = false;
    while let Some(heard) = call.heard().await {
        match heard {
            Heard::ResponseBody(data) => got += data.data.len(),
            Heard::Status(status) => leaving |= status.health() == OnWire::ShuttingDown,
            _ => {}
        }
    }
    assert!(leaving);
    assert_eq!(got, 65_536, "no more than its window");
    drop(call);
    soon(agent.returned()).await;
    assert!((9..=14).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_idle_agent_returns_at_once() {
    let (gateway, network) = (Gateway::default().await, Network::default());
    let _hosted = network.host("gw", &gateway);
    let agent = run(agent(&network, &["gw"], idle(), 8));
    gateway.joined("gpu-1").await;
    let began = Instant::now();
    agent.stop.cancel();
    soon(agent.returned()).await;
    assert!(began.elapsed() < Duration::from_secs(1));
    soon(gateway.until(|fleet| fleet.runners().is_empty())).await;
}

#[tokio::test(start_paused = true)]
async fn it_comes_back_after_a_cut() {
    let (gateway, network) = (Gateway::default().await, Network::default());
    let hosted = network.host("gw", &gateway);
    let _agent = run(agent(&network, &["gw"], idle(), 8));
    for _ in 0..3 {
        let runner = gateway.joined("gpu-1").await;
        hosted.cut();
        soon(runner.left()).await;
        soon(gateway.until(|fleet| fleet.runner("gpu-1").is_some_and(|now| now.key() != runner.key()))).await;
    }
    let answer = soon(gateway.runner("gpu-1").unwrap().link().send(post(""))).await.unwrap();
    assert_eq!(gateway_testkit::text(answer).await.unwrap(), "hello");
}

#[tokio::test(start_paused = true)]
async fn it_waits_long_after_a_refusal_and_not_so_long_otherwise() {
    let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1000)).unwrap();
    for (end, long) in [
        (Status::unauthenticated("no"), true),
        (Status::unimplemented("no"), true),
        (Status::unavailable("later"), false),
        (Status::ok(""), false),
    ] {
        let network = Network::default();
        let mut gateway = Played::at(&network, "gw");
        let _agent = run(agent(&network, &["gw"], idle(), 8).backoff(backoff));
        let mut call = gateway.call().await;
        call.register().await;
        call.end(end.clone()).await;
        while call.heard().await.is_some() {}
        drop(call);
        let began = Instant::now();
        let again = tokio::time::timeout(Duration::from_secs(1001), gateway.call()).await;
        assert!(again.is_ok(), "{end:?}");
        assert_eq!(began.elapsed() >= Duration::from_secs(500), long, "{end:?}: {:?}", began.elapsed());
    }
    // What is said before the end counts more than the status.
    let network = Network::default();
    let mut gateway = Played::at(&network, "gw");
    let _agent = run(agent(&network, &["gw"], idle(), 8).backoff(backoff));
    let mut call = gateway.call().await;
    call.register().await;
    let (code, message) = ("AUTH_FAILED".to_owned(), "no".to_owned());
    call.tell(Tell::Error(Error { code, message })).await;
    call.end(Status::ok("")).await;
    while call.heard().await.is_some() {}
    let began = Instant::now();
    let _ = tokio::time::timeout(Duration::from_secs(1001), gateway.call()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(500));
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_breaks_the_rules_is_told_and_dialled_again() {
    let network = Network::default();
    let mut gateway = Played::at(&network, "gw");
    let _agent = run(agent(&network, &["gw"], idle(), 1));
    let wrong: Vec<(&str, Vec<Tell>)> = vec![
        ("numbers only rise", {
            let head = |stream_id, end| {
                let (method, path) = ("GET".to_owned(), "/".to_owned());
                Tell::RequestHead(RequestHead { stream_id, method, path, end, ..Default::default() })
            };
            vec![head(5, true), head(5, true)]
        }),
        ("never begun", vec![Tell::RequestBody(Data { stream_id: 1, data: Bytes::from_static(b"x") })]),
        ("never begun", vec![Tell::Reset(Reset { stream_id: 4, ..Reset::default() })]),
        ("never begun", vec![Tell::WindowUpdate(WindowUpdate { stream_id: 4, bytes: 1 })]),
        ("the method", vec![Tell::RequestHead(RequestHead { stream_id: 1, ..Default::default() })]),
    ];
    for (words, frames) in wrong {
        let (mut call, _) = soon(gateway.registered()).await;
        for frame in frames {
            call.tell(frame).await;
        }
        let error =
            call.until(|heard| if let Heard::Error(error) = heard { Some(error) } else { None }).await;
        assert_eq!(error.code, "PROTOCOL_ERROR");
        assert!(error.message.contains(words), "{error:?}");
        assert!(soon(call.heard()).await.is_none(), "its side has ended");
    }
}

#[tokio::test(start_paused = true)]
async fn one_agent_holds_gateways_of_both_kinds() {
    use gateway_core::{Door, InMemoryRegistry, Registry, RunnerSource};
    use gateway_transport_ws::WsRunners;
    use hyper_util::rt::TokioIo;
    use tower_service::Service;

    let (over_grpc, network) = (Gateway::default().await, Network::default());
    let _hosted = network.host("grpc", &over_grpc);
    let runners = WsRunners::builder().auth_token("secret").build();
    let acceptor = runners.acceptor();
    let registry = Arc::new(InMemoryRegistry::new());
    let stop = gateway_core::CancellationToken::new();
    tokio::spawn(Box::new(runners).run(registry.clone(), stop.clone()));
    assert_eq!(acceptor.path(), "/ws/runners");
    let mut dialled = network.listen("ws");
    tokio::spawn(async move {
        while let Some(stream) = dialled.recv().await {
            let acceptor = acceptor.clone();
            let service = hyper::service::service_fn(move |request| acceptor.clone().call(request));
            let server = hyper::server::conn::http1::Builder::new();
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service).with_upgrades());
        }
    });
    let (sender, written) = body();
    let written = Mutex::new(vec![written]);
    let engine = Engine::answering(move |_| {
        let body = written.lock().unwrap().pop().expect("the engine saw one that was refused");
        async { Ok(http::Response::new(body)) }
    });
    let agent = gateway_transport_ws::agent::Agent::builder()
        .transport(Grpc)
        .connector(network.clone())
        .gateway("ws://ws")
        .gateway("grpc://grpc")
        .token("secret")
        .spec(spec("gpu-1", 1))
        .engine(engine);
    let agent = run(agent);
    let by_grpc = over_grpc.joined("gpu-1").await;
    let mut events = registry.events();
    while registry.fleet().runner("gpu-1").is_none() {
        soon(events.next()).await.unwrap();
    }
    let by_ws = registry.fleet().runner("gpu-1").cloned().unwrap();
    // They share its one slot.
    let mut answer = soon(by_grpc.link().send(post(""))).await.unwrap();
    let refused = soon(by_ws.link().send(post(""))).await.unwrap();
    assert_eq!(refused.status(), http::StatusCode::SERVICE_UNAVAILABLE);
    sender.send(Ok("one".into())).await.unwrap();
    assert_eq!(soon(next_chunk(answer.body_mut())).await.unwrap().unwrap(), "one");
    drop((answer, sender));
    agent.stop.cancel();
    soon(agent.returned()).await;
    soon(over_grpc.until(|fleet| fleet.runners().is_empty())).await;
    assert!(registry.fleet().runners().is_empty());
}

#[test]
fn addresses_find_their_transport() {
    let build = |both: bool, address: &str| {
        let builder = Agent::builder().spec(spec("gpu-1", 1)).engine(idle()).gateway(address);
        let builder = if both { builder.transport(gateway_transport_ws::agent::WebSocket) } else { builder };
        builder.build()
    };
    assert!(build(false, "grpc://gw").is_ok() && build(false, "unix:/run/x").is_ok());
    assert!(build(true, "grpc://gw").is_ok() && build(true, "ws://gw").is_ok());
    for address in ["ws://gw", "gw:50050"] {
        let error = build(false, address).unwrap_err();
        assert!(error.to_string().contains("grpc://"), "{error}");
    }
    assert!(matches!(build(true, "ftp://gw"), Err(InvalidAgent::Gateway { .. })));
    assert!(matches!(build(true, "wss://gw"), Err(InvalidAgent::Tls { .. })));
    assert!(matches!(build(true, "grpcs://gw"), Err(InvalidAgent::Tls { .. })));
    let secret = build(false, "grpc://user:hunter2@gw").unwrap_err().to_string();
    assert!(!secret.contains("hunter2"), "{secret}");
}
