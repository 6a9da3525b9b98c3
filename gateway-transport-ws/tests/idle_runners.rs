//! What a runner costs that dialled in and has nothing to do yet: memory for as long as it is there.

mod support;

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;

use futures_util::{SinkExt, StreamExt};
use gateway_transport_ws::socket::websocket_config;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use support::{Gateway, heartbeat, register, status};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tower_service::Service;

/// Bytes of heap that a runner with a tunnel may hold in the gateway before its first request, which needs some 30 KiB
/// for HTTP/2. The largest part are the 4 KiB into which the socket is read.
const BOUND: i64 = 14 * 1024;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Lets in whoever connects, for as long as the runtime lives.
async fn listen(gateway: &Gateway) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, acceptor) = (listener.local_addr().unwrap(), gateway.acceptor.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| acceptor.clone().call(request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                let _ = connection.with_upgrades().await;
            });
        }
    });
    address
}

/// Registers, says how it is, and stays.
async fn runner(address: SocketAddr, nth: usize) -> impl Sized {
    let stream = TcpStream::connect(address).await.unwrap();
    let dialled = client_async_with_config("ws://gateway/ws/runners", stream, Some(websocket_config())).await;
    let mut socket = dialled.unwrap().0;
    let mut message = register(&format!("runner-{nth}"));
    message["tunnel"] = json!({"version": 1, "max_streams": 8});
    socket.send(Message::text(message.to_string())).await.unwrap();
    let ack = socket.next().await.unwrap().unwrap();
    assert!(ack.to_text().unwrap().contains("register_ack"), "{ack}");
    // HTTP/2's settings, as a server begins with them.
    socket.send(Message::binary(vec![0, 0, 0, 4, 0, 0, 0, 0, 0])).await.unwrap();
    for _ in 0..3 {
        let beat = heartbeat("heartbeat", status(&["a", "b"]));
        socket.send(Message::text(beat.to_string())).await.unwrap();
    }
    socket
}

/// Runners on a thread of their own, so that what they hold is not counted: as many as are asked for, until no more
/// can be.
fn fleet(address: SocketAddr) -> mpsc::Sender<usize> {
    let (more, wanted) = mpsc::channel::<usize>();
    thread::spawn(move || {
        runtime().block_on(async {
            let mut there = Vec::new();
            while let Ok(more) = wanted.recv() {
                for _ in 0..more {
                    there.push(runner(address, there.len()).await);
                }
            }
        });
    });
    more
}

#[test]
fn an_idle_runner_holds_little() {
    const WARM: usize = 10;
    const COUNTED: usize = 100;
    let runtime = runtime();
    let gateway = runtime.block_on(Gateway::default());
    let more = fleet(runtime.block_on(listen(&gateway)));
    let until = |there: usize| {
        runtime.block_on(
            gateway.until(|fleet| fleet.model("b").is_some_and(|entry| entry.known().len() == there)),
        );
    };
    more.send(WARM).unwrap();
    until(WARM);
    let counted = allocation_counter::measure(|| {
        more.send(COUNTED).unwrap();
        until(WARM + COUNTED);
    });
    let each = counted.bytes_current / COUNTED as i64;
    println!("{each} bytes of heap per idle runner");
    assert!((4 * 1024..BOUND).contains(&each), "an idle runner holds {each} bytes");
}
