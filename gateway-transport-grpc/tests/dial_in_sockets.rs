//! Dialling in over real sockets: TCP and Unix.

mod dial_in_support;

use std::sync::Arc;
use std::time::Duration;

use dial_in_support::{Engine, Gateway, post, run, serve, soon, spec};
use gateway_core::LinkBody;
use gateway_transport_grpc::dial_in::agent::{Agent, AgentBuilder, Backoff};
use tokio::net::{TcpListener, UnixListener};

fn agent(address: String) -> AgentBuilder {
    let engine: Arc<Engine> =
        Engine::answering(|_| async { Ok(http::Response::new(LinkBody::full("hello"))) });
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(20)).unwrap();
    let builder = Agent::builder().gateway(address).token("secret").backoff(backoff);
    builder.spec(spec("gpu-1", 4)).engine(engine)
}

async fn serves(gateway: &Gateway) {
    let runner = gateway.joined("gpu-1").await;
    let answer = soon(runner.link().send(post("{}"))).await.unwrap();
    assert_eq!(gateway_testkit::text(answer).await.unwrap(), "hello");
}

#[tokio::test]
async fn over_tcp() {
    let gateway = Gateway::default().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = gateway.service.clone();
    let accepting = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, service.clone()));
        }
    });
    let agent = run(agent(format!("grpc://{address}")));
    serves(&gateway).await;
    agent.stop.cancel();
    soon(agent.returned()).await;
    accepting.abort();
}

#[tokio::test]
async fn over_a_unix_socket() {
    let gateway = Gateway::default().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.sock");
    // The agent is there first.
    let agent = run(agent(format!("unix:{}", path.display())));
    let listener = UnixListener::bind(&path).unwrap();
    let service = gateway.service.clone();
    let accepting = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, service.clone()));
        }
    });
    serves(&gateway).await;
    agent.stop.cancel();
    soon(agent.returned()).await;
    accepting.abort();
}
