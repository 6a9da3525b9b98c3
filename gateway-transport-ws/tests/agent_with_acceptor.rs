//! The real agent at the real door, over real sockets.

mod agent_support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_support::{Engine, Load, Running, run, spec};
use gateway_core::{
    CancellationToken, Command, Dispatcher, Fleet, FleetEvent, Health, InMemoryRegistry, LeaveReason,
    ModelId, Registry, RunnerSource, RunnerStatus,
};
use gateway_testkit::{Script, assert_all_zero, request, text};
use gateway_transport_ws::agent::{Agent, AgentBuilder, Backoff};
use gateway_transport_ws::{PeerAddr, WsRunners};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tower_service::Service;

/// A gateway that listens on loopback, as a host would mount it.
struct Gateway {
    address: SocketAddr,
    registry: Arc<InMemoryRegistry>,
    dispatcher: Dispatcher,
    /// How many connections there were.
    accepted: watch::Receiver<u32>,
    _tasks: JoinSet<()>,
}

impl Gateway {
    async fn start() -> Self {
        let runners = WsRunners::builder().auth_token("secret").build();
        let acceptor = runners.acceptor();
        let registry = Arc::new(InMemoryRegistry::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(Box::new(runners).run(registry.clone(), CancellationToken::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, accepted) = watch::channel(0);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, peer) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                count.send_modify(|count| *count += 1);
                let acceptor = acceptor.clone();
                let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
                    request.extensions_mut().insert(PeerAddr(peer));
                    acceptor.clone().call(request)
                });
                connections.spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades(),
                );
            }
        });
        let dispatcher = Dispatcher::builder(registry.clone()).build();
        Self { address, registry, dispatcher, accepted, _tasks: tasks }
    }

    async fn until(&self, wanted: impl Fn(&Fleet) -> bool) {
        let mut events = self.registry.events();
        let waiting = async {
            while !wanted(&self.registry.fleet()) {
                events.next().await.unwrap();
            }
        };
        timeout(Duration::from_secs(10), waiting).await.expect("the fleet is not as wanted");
    }

    async fn serves(&self, model: &str) {
        self.until(|fleet| fleet.model(model).is_some_and(|entry| !entry.loaded().is_empty())).await;
    }
}

fn agent(gateways: &[&Gateway], engine: &Engine) -> AgentBuilder {
    let backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(50)).unwrap();
    let builder = Agent::builder().token("secret").spec(spec(4).label("zone", "eu").machine("gpu"));
    let builder = builder.engine(Arc::new(engine.clone())).backoff(backoff);
    gateways.iter().fold(builder, |builder, gateway| builder.gateway(format!("ws://{}", gateway.address)))
}

fn start(gateways: &[&Gateway], engine: &Engine) -> Running {
    run(agent(gateways, engine))
}

fn small() -> ModelId {
    ModelId::new("small").unwrap()
}

#[tokio::test]
async fn it_joins_and_answers_stream_through_the_tunnel() {
    let gateway = Gateway::start().await;
    let (feeder, script) = Script::fed();
    let script = Mutex::new(Some(script));
    let engine = Engine::new(move |_| script.lock().unwrap().take().unwrap());
    let _agent = start(&[&gateway], &engine);
    gateway.serves("small").await;
    let fleet = gateway.registry.fleet();
    let runner = fleet.runner("gpu-1").unwrap();
    assert_eq!(runner.spec().slots.map(|slots| slots.get()), Some(4));
    assert_eq!(runner.spec().labels["zone"], "eu");
    assert_eq!(runner.link().describe().transport, "tunnel");

    // One chunk is sent only after the one before has arrived: nothing gathers them.
    let dispatch = gateway.dispatcher.dispatch(request(&small(), r#"{"model":"small"}"#));
    let (answer, _) = tokio::join!(dispatch, feeder.send("0"));
    let mut body = answer.unwrap().response.into_body();
    for n in 1..50 {
        let chunk = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(chunk, (n - 1).to_string());
        assert!(feeder.send(n.to_string()).await);
    }
    drop(feeder);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "49");
    assert_eq!(engine.mock.last_seen().unwrap().body, r#"{"model":"small"}"#);
    assert_all_zero(&gateway.dispatcher, [&engine.mock]).await;
}

#[tokio::test]
async fn killed_it_leaves_at_once_and_come_back_it_serves_again() {
    let gateway = Gateway::start().await;
    let engine = Engine::idle();
    let mut generations = Vec::new();
    for _ in 0..3 {
        let agent = start(&[&gateway], &engine);
        gateway.serves("small").await;
        generations.push(gateway.registry.fleet().runner("gpu-1").unwrap().key().generation);
        let answer = gateway.dispatcher.dispatch(request(&small(), "{}")).await.unwrap();
        assert_eq!(text(answer.response).await.unwrap(), "hello");
        let mut events = gateway.registry.events();
        let killed = Instant::now();
        agent.kill();
        let left = async {
            loop {
                if let FleetEvent::Left(_, reason) = events.next().await.unwrap() {
                    return reason;
                }
            }
        };
        assert_eq!(timeout(Duration::from_secs(10), left).await.unwrap(), LeaveReason::Disconnected);
        assert!(killed.elapsed() < Duration::from_millis(500), "{:?}", killed.elapsed());
        assert!(gateway.registry.fleet().runners().is_empty());
    }
    assert!(generations.is_sorted() && generations[0] < generations[2]);
}

#[tokio::test]
async fn a_request_in_flight_when_it_is_killed_fails_at_once() {
    let gateway = Gateway::start().await;
    let engine = Engine::new(|_| Script::text("").fault(gateway_testkit::Fault::NoAnswer));
    let agent = start(&[&gateway], &engine);
    gateway.serves("small").await;
    let dispatch = gateway.dispatcher.dispatch(request(&small(), "{}"));
    let kill = async {
        engine.mock.until(|counts| counts.started == 1).await;
        agent.kill();
    };
    let (answer, ()) = timeout(Duration::from_secs(5), async { tokio::join!(dispatch, kill) }).await.unwrap();
    assert!(answer.is_err());
    assert_all_zero(&gateway.dispatcher, [&engine.mock]).await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_byte_stops_the_engine() {
    let gateway = Gateway::start().await;
    let engine = Engine::new(|_| Script::text("").fault(gateway_testkit::Fault::NoAnswer));
    let _agent = start(&[&gateway], &engine);
    gateway.serves("small").await;
    let started = engine.mock.until(|counts| counts.started == 1);
    tokio::select! {
        _ = gateway.dispatcher.dispatch(request(&small(), "{}")) => panic!("answered"),
        _ = started => {}
    }
    let left = Instant::now();
    engine.mock.until(|counts| counts.aborted == 1).await;
    assert!(left.elapsed() < Duration::from_millis(500), "{:?}", left.elapsed());
    assert_all_zero(&gateway.dispatcher, [&engine.mock]).await;
}

#[tokio::test]
async fn stopped_it_finishes_what_it_has_and_the_gateway_sends_nothing_new() {
    let gateway = Gateway::start().await;
    let (feeder, script) = Script::fed();
    let script = Mutex::new(Some(script));
    let engine = Engine::new(move |_| script.lock().unwrap().take().unwrap());
    let agent = start(&[&gateway], &engine);
    gateway.serves("small").await;
    let dispatch = gateway.dispatcher.dispatch(request(&small(), "{}"));
    let (answer, _) = tokio::join!(dispatch, feeder.send("begun, "));
    agent.stop.cancel();
    let draining = |fleet: &Fleet| {
        fleet.runner("gpu-1").is_some_and(|runner| runner.status().health == Health::ShuttingDown)
    };
    gateway.until(draining).await;
    assert!(gateway.dispatcher.dispatch(request(&small(), "{}")).await.is_err());
    assert_eq!(engine.mock.counts().started, 1);
    assert!(feeder.send("done").await);
    drop(feeder);
    assert_eq!(text(answer.unwrap().response).await.unwrap(), "begun, done");
    timeout(Duration::from_secs(2), agent.returned()).await.expect("it lingers");
    gateway.until(|fleet| fleet.runners().is_empty()).await;
    assert_all_zero(&gateway.dispatcher, [&engine.mock]).await;
}

#[tokio::test]
async fn commands_reach_the_engine_and_its_answer_comes_with_the_new_fleet() {
    let gateway = Gateway::start().await;
    let engine = Engine::idle();
    let _agent = start(&[&gateway], &engine);
    gateway.serves("small").await;
    let link = gateway.registry.fleet().runner("gpu-1").unwrap().link().clone();
    let large = ModelId::new("large").unwrap();
    engine.set_status(Some(RunnerStatus::serving([small(), large.clone()])));
    let reply = link.command(Command::LoadModel(large.clone())).await.unwrap();
    assert_eq!(reply.result, Ok(()));
    assert_eq!(engine.commands(), [Command::LoadModel(large)]);
    assert!(gateway.registry.fleet().model("large").is_some());
    engine.set_load(Load::Refuse("it is in use"));
    let reply = link.command(Command::UnloadModel(small())).await.unwrap();
    assert_eq!(reply.result, Err("it is in use".to_owned()));
    assert!(link.command(Command::Status).await.unwrap().status.is_some());
}

#[tokio::test]
async fn without_the_tunnel_the_gateway_dials_back() {
    let gateway = Gateway::start().await;
    let engine = Engine::idle();
    let server = engine.mock.serve_http().await.unwrap();
    let _agent = run(agent(&[&gateway], &engine).tunnel(false).http_port(server.address().port()));
    gateway.serves("small").await;
    let fleet = gateway.registry.fleet();
    assert_eq!(fleet.runner("gpu-1").unwrap().link().describe().transport, "dial-back");
    let answer = gateway.dispatcher.dispatch(request(&small(), "{}")).await.unwrap();
    assert_eq!(text(answer.response).await.unwrap(), "hello");
    assert_all_zero(&gateway.dispatcher, [&engine.mock]).await;
}

#[tokio::test]
async fn two_gateways_are_served_by_one_agent() {
    let (a, b) = (Gateway::start().await, Gateway::start().await);
    let engine = Engine::idle();
    let agent = start(&[&a, &b], &engine);
    for gateway in [&a, &b] {
        gateway.serves("small").await;
        let answer = gateway.dispatcher.dispatch(request(&small(), "{}")).await.unwrap();
        assert_eq!(text(answer.response).await.unwrap(), "hello");
    }
    agent.stop.cancel();
    timeout(Duration::from_secs(2), agent.returned()).await.expect("it lingers");
    for gateway in [&a, &b] {
        gateway.until(|fleet| fleet.runners().is_empty()).await;
        assert_all_zero(&gateway.dispatcher, [&engine.mock]).await;
    }
}

#[tokio::test]
async fn a_wrong_token_keeps_it_out() {
    let mut gateway = Gateway::start().await;
    let engine = Engine::idle();
    let mut events = gateway.registry.events();
    let agent = run(agent(&[&gateway], &engine).token("guessed"));
    // It dials again only after it was refused.
    tokio::select! {
        event = events.next() => panic!("{event:?}"),
        tries = gateway.accepted.wait_for(|tries| *tries >= 5) => drop(tries.unwrap()),
    }
    agent.stop.cancel();
    timeout(Duration::from_secs(2), agent.returned()).await.expect("it lingers");
}
