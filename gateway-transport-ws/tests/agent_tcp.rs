//! The agent over real sockets.

mod agent_support;

use std::sync::Arc;
use std::time::Duration;

use agent_support::{Engine, Peer, run, spec};
use gateway_transport_ws::agent::{Agent, Backoff};
use tokio::net::TcpListener;

#[tokio::test]
async fn it_dials_over_tcp_and_comes_back_when_the_gateway_does() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(20)).unwrap();
    let agent = run(Agent::builder()
        .gateway(format!("ws://{address}"))
        .spec(spec(8))
        .engine(Arc::new(Engine::idle()))
        .backoff(backoff));
    let (stream, _) = listener.accept().await.unwrap();
    let mut peer = Peer::new(stream).await;
    let register = peer.hear("register").await;
    assert_eq!(register["runner_id"], "gpu-1");
    drop(peer);
    // Nobody listens for a while.
    drop(listener);
    let listener = TcpListener::bind(address).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut peer = Peer::new(stream).await;
    peer.register().await;
    let tunnel = peer.tunnel().await;
    assert_eq!(tunnel.request("/").await.status(), http::StatusCode::OK);
    agent.stop.cancel();
    agent.returned().await;
    assert!(peer.ended().await);
}
