//! What the builder refuses, and what it tells to do about it.

use std::sync::Arc;
use std::time::Duration;

use gateway_core::{RunnerId, RunnerSpec};
use gateway_testkit::{MockEngine, Script};
use gateway_transport_ws::agent::{Agent, AgentBuilder, InvalidAgent};

fn builder() -> AgentBuilder {
    let spec = RunnerSpec::new(RunnerId::new("gpu-1").unwrap());
    Agent::builder().spec(spec).engine(MockEngine::new(|_| Script::text("")).link()).token("t0p-secret")
}

#[test]
fn what_is_needed_is_asked_for() {
    assert_eq!(builder().build().unwrap_err(), InvalidAgent::NoGateway);
    let gateway = || Agent::builder().gateway("ws://gw:8080");
    assert_eq!(gateway().build().unwrap_err(), InvalidAgent::NoSpec);
    let spec = RunnerSpec::new(RunnerId::new("gpu-1").unwrap());
    let error = gateway().spec(spec).build().unwrap_err();
    assert_eq!(error, InvalidAgent::NoEngine { runner: "gpu-1".to_owned() });
    assert!(builder().gateway("ws://gw:8080").build().is_ok());
}

#[test]
fn addresses_are_checked() {
    let error = |url: &str| builder().gateway(url).build().unwrap_err();
    assert!(matches!(error("gw:8080"), InvalidAgent::Gateway { .. }));
    assert!(matches!(error("ftp://gw"), InvalidAgent::Gateway { .. }));
    let tls = error("wss://gw/ws/runners");
    assert!(matches!(tls, InvalidAgent::Tls { .. }) && tls.to_string().contains("feature `tls`"));
    // The same place by two names; each connection would replace the other.
    let twice = builder().gateway("ws://gw:80/ws/runners").gateway("http://gw").build().unwrap_err();
    assert_eq!(twice, InvalidAgent::SameGatewayTwice { url: "ws://gw:80/ws/runners".to_owned() });
    let many = (0..=AgentBuilder::MAX_GATEWAYS).fold(builder(), |b, n| b.gateway(format!("ws://gw{n}")));
    assert!(matches!(many.build(), Err(InvalidAgent::TooManyGateways(65))));
}

#[test]
fn settings_are_checked() {
    let zero = Duration::ZERO;
    for (name, builder) in [
        ("heartbeat_interval", builder().heartbeat_interval(zero)),
        ("status_interval", builder().status_interval(zero)),
        ("connect_timeout", builder().connect_timeout(zero)),
        ("ack_timeout", builder().ack_timeout(zero)),
        ("command_timeout", builder().command_timeout(zero)),
        ("http_port", builder().tunnel(false).http_port(0)),
    ] {
        let error = builder.gateway("ws://gw").build().unwrap_err();
        assert!(matches!(&error, InvalidAgent::Setting { setting, .. } if *setting == name), "{error}");
        assert!(error.to_string().contains("gpu-1"), "{error}");
    }
    assert!(builder().gateway("ws://gw").drain_timeout(zero).build().is_ok());
    // With the tunnel nobody dials back.
    assert!(builder().gateway("ws://gw").http_port(0).build().is_ok());
}

#[test]
fn secrets_show_up_nowhere() {
    let texts = [
        builder().gateway("ws://user:hunter2@gw").build().unwrap_err().to_string(),
        builder().gateway("wss://user:hunter2@gw?key=hunter2").build().unwrap_err().to_string(),
        builder().gateway("user:hunter2@gw").build().unwrap_err().to_string(),
        format!("{:?}", builder().gateway("ws://user:hunter2@gw")),
        format!("{:?}", builder().gateway("ws://gw/?token=hunter2").build().unwrap()),
        format!("{:?}", builder().gateway("ws://gw/?token=hunter2").gateway("ws://gw?token=hunter2").build()),
    ];
    for text in texts {
        assert!(!text.contains("hunter2") && !text.contains("t0p-secret"), "{text}");
    }
}

#[test]
fn an_engine_is_any_link() {
    let engine: Arc<dyn gateway_core::RunnerLink> = MockEngine::new(|_| Script::text("")).link();
    assert!(builder().engine(engine).gateway("ws://gw").build().is_ok());
}
