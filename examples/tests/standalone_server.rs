//! `standalone` accepts no more connections than it should and ends in order.

#[path = "../standalone/server.rs"]
#[allow(dead_code, reason = "signals are for the end-to-end tests")]
mod server;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(10);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n";

/// A server whose answers wait until they are let go.
struct Server {
    address: SocketAddr,
    arrived: watch::Receiver<usize>,
    let_go: watch::Sender<bool>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn start(max_connections: usize, drain: Duration) -> Server {
    let listener = server::listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (arrive, arrived) = watch::channel(0);
    let (let_go, gate) = watch::channel(false);
    let service = tower::service_fn(move |_: Request<Incoming>| {
        let mut gate = gate.clone();
        arrive.send_modify(|count| *count += 1);
        async move {
            let _ = gate.wait_for(|open| *open).await;
            Ok::<_, Infallible>(Response::new(Full::new(bytes::Bytes::from("done"))))
        }
    });
    let stop = CancellationToken::new();
    let task = tokio::spawn(server::serve(listener, service, max_connections, stop.clone(), drain));
    Server { address, arrived, let_go, stop, task }
}

impl Server {
    async fn ask(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        stream
    }

    async fn until_arrived(&mut self, count: usize) {
        let arrived = self.arrived.wait_for(|arrived| *arrived >= count);
        tokio::time::timeout(PATIENCE, arrived).await.unwrap().unwrap();
    }
}

async fn to_the_end(mut stream: TcpStream) -> String {
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

#[tokio::test]
async fn a_connection_over_the_limit_waits_for_its_turn() {
    let mut server = start(1, PATIENCE).await;
    let first = server.ask().await;
    server.until_arrived(1).await;
    let _second = server.ask().await;
    let early = tokio::time::timeout(Duration::from_millis(100), server.until_arrived(2)).await;
    assert!(early.is_err(), "the second was served while the first was open");
    drop(first);
    server.until_arrived(2).await;
}

#[tokio::test]
async fn the_end_waits_for_answers_under_way_and_for_no_idle_connection() {
    let mut server = start(10, PATIENCE).await;
    let asked = server.ask().await;
    let idle = TcpStream::connect(server.address).await.unwrap();
    server.until_arrived(1).await;
    server.stop.cancel();
    assert_eq!(to_the_end(idle).await, "");
    assert!(!server.task.is_finished());
    server.let_go.send(true).unwrap();
    let answer = to_the_end(asked).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
    tokio::time::timeout(PATIENCE, server.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn the_end_waits_no_longer_than_it_should() {
    let mut server = start(10, Duration::from_millis(50)).await;
    let asked = server.ask().await;
    server.until_arrived(1).await;
    server.stop.cancel();
    tokio::time::timeout(PATIENCE, server.task).await.unwrap().unwrap();
    assert_eq!(to_the_end(asked).await, "", "it was cut off");
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let holder = server::listen("127.0.0.1:0").await.unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    assert!(server::listen(&taken).await.unwrap_err().to_string().contains(&taken));
    assert!(server::listen("no.such.host.invalid:1").await.unwrap_err().to_string().contains("no.such.host"));
}
