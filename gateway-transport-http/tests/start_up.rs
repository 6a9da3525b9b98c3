//! Bad runners neither delay the start nor slow the good ones down.

mod sourcing;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_core::{Dispatcher, ModelId, Registry, RoundRobin};
use gateway_testkit::{request, text};
use gateway_transport_http::{HttpRunner, HttpRunners};
use sourcing::run;
use support::*;
use tokio::net::{TcpSocket, TcpStream};

const MODELS: &str = r#"{"object":"list","data":[{"id":"m","object":"model"}]}"#;

/// A listener whose queue is full: who connects waits.
struct BlackHole {
    url: String,
    _listener: tokio::net::TcpListener,
    _queue: Vec<TcpStream>,
}

impl BlackHole {
    async fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) =
            tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await
        {
            queue.push(stream.unwrap());
            // A system without a limit to that queue makes it a silent one, which will do.
            if queue.len() > 64 {
                break;
            }
        }
        Self { url: format!("http://{address}"), _listener: listener, _queue: queue }
    }
}

async fn good() -> Scripted {
    Scripted::start([("/v1/models", 200, MODELS), ("/v1/chat/completions", 200, "fine")]).await
}

#[tokio::test]
async fn the_good_ones_join_at_once_and_serve_at_full_pace() {
    let silent = Server::start(|_, mut peer| async move { peer.ended().await }).await;
    let resets = Server::start(|_, peer| async move {
        // A reset, not an end.
        socket_reset(peer.stream);
    })
    .await;
    let broken = Server::answering(answer(500, "broken")).await;
    let hole = BlackHole::new().await;
    let goods = [good().await, good().await];
    let runners = [&hole.url, &silent.url, &resets.url, &goods[0].url, &broken.url, &goods[1].url];

    let started = Instant::now();
    let running = run(HttpRunners::fixed(runners).probe_interval(Duration::from_millis(20)));
    running.until("the good ones", |runners| runners.len() == 2).await;
    let joined = started.elapsed();
    assert!(joined < Duration::from_secs(1), "{joined:?}");

    let balancer = Arc::new(RoundRobin::default());
    let dispatcher = Dispatcher::builder(running.registry.clone()).balancer(balancer).build();
    let model = ModelId::new("m").unwrap();
    let (started, mut served) = (Instant::now(), BTreeMap::new());
    for _ in 0..500 {
        let answer = dispatcher.dispatch(request(&model, "{}")).await.unwrap();
        *served.entry(answer.runner.id().to_string()).or_insert(0) += 1;
        assert_eq!(text(answer.response).await.unwrap(), "fine");
    }
    let took = started.elapsed();
    println!("joined after {joined:?}; 500 requests one after the other in {took:?}: {served:?}");
    assert_eq!(served.into_values().collect::<Vec<_>>(), [250, 250]);
    assert!(took < Duration::from_secs(5), "{took:?}");
    let registry = running.stopped().await;
    assert!(registry.fleet().runners().is_empty());
}

#[tokio::test]
async fn bad_ones_that_are_believed_in_cost_nobody_an_answer() {
    let silent = Server::start(|_, mut peer| async move { peer.ended().await }).await;
    let resets = Server::start(|_, peer| async move { socket_reset(peer.stream) }).await;
    let goods = [good().await, good().await];
    // With their models given, all of them are there from the start.
    let entry = |url: &str| HttpRunner::new(url).unwrap().models(["m"]);
    let list = [&resets.url, &silent.url, &goods[0].url, &goods[1].url].map(|url| entry(url));
    let running = run(HttpRunners::list(list).probe_interval(Duration::from_millis(20)));
    running.until("all", |runners| runners.len() == 4).await;
    let deadlines =
        gateway_core::Deadlines { first_byte: Some(Duration::from_millis(200)), ..Default::default() };
    let dispatcher = Dispatcher::builder(running.registry.clone()).deadlines(deadlines).build();
    let model = ModelId::new("m").unwrap();
    for _ in 0..100 {
        let answer = soon("an answer", dispatcher.dispatch(request(&model, "{}"))).await.unwrap();
        assert_eq!(text(answer.response).await.unwrap(), "fine");
    }
}

fn socket_reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
}
