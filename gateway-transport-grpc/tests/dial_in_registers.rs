//! Who is let in, and what a registration says.

mod dial_in_support;

use std::time::Duration;

use dial_in_support::client::{Client, Say, Told, register, status};
use dial_in_support::{Gateway, soon};
use gateway_core::{ModelState, Price};
use gateway_transport_grpc::dial_in::{DialInService, GrpcDialIn, MAX_STREAMS};
use gateway_transport_grpc::proto::runner_gateway::{Machine, Register, Resources, price};
use tokio::time::Instant;
use tonic::Code;

/// How a registration is refused.
async fn refused(gateway: &Gateway, register: Register) -> (Option<String>, Code) {
    let mut client = gateway.dial().await;
    client.say(Say::Register(register)).await;
    client.end().await
}

fn told(code: &str, status: Code) -> (Option<String>, Code) {
    (Some(code.to_owned()), status)
}

#[tokio::test(start_paused = true)]
async fn what_a_runner_says_of_itself_is_in_the_fleet() {
    let gateway = Gateway::default().await;
    let mut client = gateway.dial().await;
    let registered = client
        .register(Register {
            name: "A runner".to_owned(),
            machine: Some(Machine { description: "gpu-server".to_owned(), mac_address: "AA".to_owned() }),
            slots: Some(3),
            labels: [("zone".to_owned(), "eu".to_owned())].into(),
            price: Some(gateway_transport_grpc::proto::runner_gateway::Price {
                price: Some(price::Price::PerHour(2.5)),
            }),
            resources: Some(Resources { gpus: 2.0, ..Resources::default() }),
            ..register("r1")
        })
        .await;
    assert_eq!((registered.runner_id.as_str(), registered.max_streams), ("r1", 3));
    assert_eq!((registered.stream_window, registered.heartbeat_interval_ms), (65_536, 30_000));
    let runner = gateway.joined("r1").await;
    let spec = runner.spec();
    assert_eq!((spec.name.as_str(), spec.slots.unwrap().get()), ("A runner", 3));
    assert_eq!(spec.machine.description.as_deref(), Some("gpu-server"));
    assert_eq!(spec.labels["zone"], "eu");
    assert_eq!(spec.price, Some(Price::PerHour(2.5)));
    assert_eq!(spec.resources.unwrap().gpus, 2.0);
    assert_eq!(runner.model("a").unwrap().state, ModelState::Loaded);
    let described = runner.link().describe();
    assert_eq!((described.transport, described.address.as_deref()), ("grpc-dial-in", Some("127.0.0.1:4000")));
    // What it does not say is not made up.
    let mut silent = gateway.join("r2").await;
    let runner = gateway.joined("r2").await;
    assert_eq!((runner.spec().slots, runner.load().foreign), (None, None));
    silent.finish();
    assert_eq!(silent.end().await, (None, Code::Ok));
}

#[tokio::test(start_paused = true)]
async fn who_is_not_let_in_is_told_why() {
    let gateway = Gateway::default().await;
    let with = |change: fn(&mut Register)| {
        let mut register = register("r1");
        change(&mut register);
        register
    };
    let denied = told("AUTH_FAILED", Code::Unauthenticated);
    assert_eq!(refused(&gateway, with(|register| register.token = "wrong".to_owned())).await, denied);
    // The token comes first: who may not come in learns nothing else.
    let both = with(|register| (register.token, register.protocol_version) = ("wrong".to_owned(), 2));
    assert_eq!(refused(&gateway, both).await, denied);
    let version = refused(&gateway, with(|register| register.protocol_version = 2)).await;
    assert_eq!(version, told("VERSION_MISMATCH", Code::FailedPrecondition));
    let wrong = told("PROTOCOL_ERROR", Code::InvalidArgument);
    assert_eq!(refused(&gateway, register("")).await, wrong);
    assert_eq!(refused(&gateway, with(|register| register.status = None)).await, wrong);
    let mut client = gateway.dial().await;
    client.say(Say::Heartbeat(status(&[]))).await;
    assert_eq!(client.end().await, wrong);
    assert!(gateway.runner("r1").is_none());
}

#[tokio::test(start_paused = true)]
async fn the_token_may_stand_in_the_metadata() {
    let runners = GrpcDialIn::builder().auth_token("secret").runner_token("own", "mine").build();
    let gateway = Gateway::start(runners).await;
    let bare = |id: &str| Register { token: String::new(), ..register(id) };
    for (id, bearer, fine) in
        [("r1", "secret", true), ("r1", "wrong", false), ("own", "secret", false), ("own", "mine", true)]
    {
        let mut client = Client::dial(gateway.connect(), Some(bearer)).await;
        client.say(Say::Register(bare(id))).await;
        assert_eq!(matches!(client.told().await, Ok(Told::Registered(_))), fine, "{id} {bearer}");
    }
    assert_eq!(refused(&gateway, bare("r2")).await.1, Code::Unauthenticated);
    let anonymous = Gateway::start(GrpcDialIn::builder().allow_anonymous().build()).await;
    anonymous.dial().await.register(bare("r3")).await;
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_sent_away() {
    let runners = GrpcDialIn::builder().auth_token("secret").register_timeout(Duration::from_secs(3));
    let gateway = Gateway::start(runners.build()).await;
    let began = Instant::now();
    assert_eq!(gateway.dial().await.end().await, told("TIMEOUT", Code::DeadlineExceeded));
    assert_eq!(began.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn there_is_room_for_so_many() {
    let runners = GrpcDialIn::builder().auth_token("secret").max_runners(2).max_unregistered(1);
    let gateway = Gateway::start(runners.build()).await;
    let full = async || Client::try_dial(gateway.connect(), None).await.map(|_| ()).unwrap_err().code();
    let mut first = gateway.dial().await;
    assert_eq!(full().await, Code::Unavailable, "one newcomer at a time");
    first.register(register("r1")).await;
    gateway.joined("r1").await;
    let _second = gateway.join("r2").await;
    gateway.joined("r2").await;
    assert_eq!(full().await, Code::Unavailable, "two in all");
    drop(first);
    soon(gateway.until(|fleet| fleet.runner("r1").is_none())).await;
    gateway.join("r3").await;
}

#[tokio::test(start_paused = true)]
async fn nobody_comes_in_before_the_source_runs_or_after_it() {
    let runners = GrpcDialIn::builder().auth_token("secret").build();
    let service = runners.service();
    let dial = async || {
        let (ours, theirs) = tokio::io::duplex(dial_in_support::WIRE);
        tokio::spawn(dial_in_support::serve(theirs, service.clone()));
        Client::try_dial(ours, None).await.map(|_| ()).map_err(|status| status.code())
    };
    assert_eq!(dial().await, Err(Code::Unavailable));
    let gateway = Gateway::start(runners).await;
    assert_eq!(dial().await, Ok(()));
    gateway.stop().await;
    assert_eq!(dial().await, Err(Code::Unavailable));
}

#[tokio::test(start_paused = true)]
async fn streams_are_granted_within_bounds() {
    let runners = GrpcDialIn::builder().auth_token("secret").max_streams(10);
    let gateway = Gateway::start(runners.build()).await;
    let mut granted = Vec::new();
    for (slots, max_streams) in [(None, None), (Some(4), None), (Some(4), Some(2)), (Some(50), Some(20))] {
        let mut client = gateway.dial().await;
        let registered = client.register(Register { slots, max_streams, ..register("r1") }).await;
        tokio::task::yield_now().await;
        let slots = gateway.joined("r1").await.spec().slots.map(std::num::NonZeroU32::get);
        granted.push((registered.max_streams, slots));
        client.finish();
        client.end().await;
        soon(gateway.until(|fleet| fleet.runners().is_empty())).await;
    }
    assert_eq!(granted, [(10, None), (4, Some(4)), (2, Some(2)), (10, Some(10))]);
    let unset = Gateway::default().await;
    assert_eq!(unset.dial().await.register(register("r1")).await.max_streams, MAX_STREAMS);
}

#[tokio::test]
async fn what_is_no_call_is_answered_in_grpcs_words() {
    use tower_service::Service;
    let gateway = Gateway::default().await;
    let mut service = gateway.service.clone();
    let path = format!("/{}/Connect", DialInService::NAME);
    let request = |path: &str, kind: &str| {
        let request = http::Request::post(path).header("content-type", kind);
        request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap()
    };
    let answer = service.call(request(&path, "application/json")).await.unwrap();
    assert_eq!(answer.status(), http::StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let answer = service.call(request("/other.Service/Connect", "application/grpc")).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "12");
    let mut compressed = request(&path, "application/grpc");
    compressed.headers_mut().insert("grpc-encoding", "gzip".parse().unwrap());
    assert_eq!(service.call(compressed).await.unwrap().headers()["grpc-status"], "12");
}
