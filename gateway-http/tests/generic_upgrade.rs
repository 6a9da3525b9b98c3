//! Connections that change to another protocol pass both ways where the route allows it, hold their slot to
//! their end, and end with the gateway.

mod common;
mod generic_support;

use std::net::SocketAddr;
use std::time::Duration;

use common::*;
use gateway_core::{RunnerId, RunnerSpec};
use gateway_http::{Gateway, GenericRoute};
use generic_support::*;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// A runner that changes to `echo` and then says back what it hears; it tells of each head that it read and of
/// each connection's end.
async fn echo(events: mpsc::Sender<String>) -> Listening {
    listen(move |mut stream, _| {
        let events = events.clone();
        async move {
            let head = read_head(&mut stream).await;
            let _ = events.send(head).await;
            // With the first words of the other protocol in the same packet.
            let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade, x-hop\r\nupgrade: echo/2\r\n\
                          x-hop: 1\r\nsec-websocket-accept: abc\r\n\r\nhello";
            stream.write_all(answer.as_bytes()).await.unwrap();
            let mut buffer = vec![0; 64 * 1024];
            loop {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) if buffer[..n].ends_with(b"bye") => {
                        let _ = stream.write_all(b"farewell").await;
                        break;
                    }
                    Ok(n) if stream.write_all(&buffer[..n]).await.is_err() => break,
                    Ok(_) => {}
                }
            }
            drop(stream);
            let _ = events.send("closed".to_owned()).await;
        }
    })
    .await
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head"));
    }
    String::from_utf8(head).unwrap()
}

/// Asks for the protocol, and gives the connection with the head of the answer.
async fn ask(gateway: SocketAddr, path: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(gateway).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {CLIENT}\r\nconnection: keep-alive, Upgrade\r\n\
         upgrade: echo/1, echo/2\r\nsec-websocket-key: xyz\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    (stream, head)
}

async fn hear(stream: &mut TcpStream, expected: &str) {
    let mut heard = vec![0; expected.len()];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), expected);
}

struct Setup {
    gateway: Gateway,
    server: Listening,
    events: mpsc::Receiver<String>,
    _runner: Listening,
}

async fn setup(route: GenericRoute) -> Setup {
    let (send, events) = mpsc::channel(16);
    let runner = echo(send).await;
    let gateway = with_route(route).build().unwrap();
    add_http(&gateway, "r1", runner.address);
    let server = serve(&gateway).await;
    Setup { gateway, server, events, _runner: runner }
}

fn ws() -> GenericRoute {
    GenericRoute::prefix("/ws").upgrades(true)
}

async fn until_idle(gateway: &Gateway) {
    gateway.dispatcher().idle().await;
    assert!(gateway.dispatcher().registry().fleet().runners().iter().all(|it| it.load().in_flight == 0));
}

#[tokio::test]
async fn both_sides_speak_and_the_runner_ends_it() {
    let Setup { gateway, server, mut events, _runner, .. } = setup(ws()).await;
    let (mut stream, head) = ask(server.address, "/ws/7?x=1").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for line in [
        "connection: upgrade\r\n",
        "upgrade: echo/2\r\n",
        "sec-websocket-accept: abc\r\n",
        "x-backend-used: r1\r\n",
    ] {
        assert!(head.contains(line), "{line} {head}");
    }
    assert!(!head.contains("x-hop"), "{head}");
    let seen = events.recv().await.unwrap();
    assert!(seen.starts_with("GET /ws/7?x=1 HTTP/1.1\r\n"), "{seen}");
    for line in ["connection: upgrade\r\n", "upgrade: echo/1, echo/2\r\n", "sec-websocket-key: xyz\r\n"] {
        assert!(seen.contains(line), "{line} {seen}");
    }
    assert!(
        !seen.contains(CLIENT) && !seen.contains("content-length") && !seen.contains("transfer-encoding")
    );
    assert!(seen.contains("x-forwarded-for: 127.0.0.1\r\n"), "{seen}");

    hear(&mut stream, "hello").await;
    for words in ["one", "two", "three"] {
        stream.write_all(words.as_bytes()).await.unwrap();
        hear(&mut stream, words).await;
    }
    assert_eq!(gateway.dispatcher().in_flight(), 1);
    stream.write_all(b"bye").await.unwrap();
    hear(&mut stream, "farewell").await;
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(events.recv().await.unwrap(), "closed");
    until_idle(&gateway).await;
    let metrics = gateway.metrics_text();
    assert!(metrics.contains(r#"gateway_outcomes_total{outcome="success"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"endpoint="generic",status="101"} 1"#), "{metrics}");
}

#[tokio::test]
async fn a_client_that_leaves_ends_it() {
    let Setup { gateway, server, mut events, _runner, .. } = setup(ws()).await;
    let (mut stream, _) = ask(server.address, "/ws").await;
    hear(&mut stream, "hello").await;
    events.recv().await.unwrap();
    drop(stream);
    assert_eq!(events.recv().await.unwrap(), "closed");
    until_idle(&gateway).await;
}

#[tokio::test]
async fn much_goes_through_both_ways_at_once() {
    let Setup { server, _runner, .. } = setup(ws()).await;
    let (mut stream, _) = ask(server.address, "/ws").await;
    hear(&mut stream, "hello").await;
    let (mut read, mut write) = stream.split();
    let sent: Vec<u8> = (0..4_000_000_u32).map(|at| (at % 251) as u8).collect();
    let mut heard = vec![0; sent.len()];
    let (written, got) = tokio::join!(write.write_all(&sent), read.read_exact(&mut heard));
    written.unwrap();
    got.unwrap();
    assert!(sent == heard);
}

#[tokio::test]
async fn a_shutdown_waits_for_it_and_then_cuts_it() {
    let Setup { gateway, server, mut events, _runner, .. } = setup(ws()).await;
    let (mut stream, _) = ask(server.address, "/ws").await;
    hear(&mut stream, "hello").await;
    events.recv().await.unwrap();
    let drained = gateway.shutdown(Duration::from_millis(50)).await;
    assert_eq!((drained.abandoned, drained.sources_left), (1, 0));
    assert_eq!(gateway.dispatcher().in_flight(), 0, "its task has ended");
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    assert_eq!(events.recv().await.unwrap(), "closed");
}

#[tokio::test]
async fn a_runner_whose_link_is_closed_ends_it() {
    let Setup { gateway, server, mut events, _runner, .. } = setup(ws()).await;
    let (mut stream, _) = ask(server.address, "/ws").await;
    hear(&mut stream, "hello").await;
    events.recv().await.unwrap();
    gateway.dispatcher().registry().fleet().runners()[0].link().close();
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    assert_eq!(events.recv().await.unwrap(), "closed");
    until_idle(&gateway).await;
}

#[tokio::test]
async fn the_slot_is_held_to_the_end() {
    let Setup { gateway, server, mut events, _runner, .. } = setup(ws()).await;
    let (mut stream, _) = ask(server.address, "/ws").await;
    hear(&mut stream, "hello").await;
    let fleet = gateway.dispatcher().registry().fleet();
    assert_eq!(fleet.runners()[0].load().in_flight, 1);
    events.recv().await.unwrap();
    drop(stream);
    until_idle(&gateway).await;
}

#[tokio::test]
async fn routes_refuse_it_unless_they_allow_it() {
    for (route, path, status) in [
        (GenericRoute::prefix("/ws"), "/ws", "501"),
        (GenericRoute::openapi(parse(r#"{"/ws": {"get": {"x-gateway": {"upgrade": true}}}}"#)), "/ws", "101"),
        (
            GenericRoute::openapi(parse(r#"{"/ws": {"get": {"x-gateway": {"upgrade": false}}}}"#))
                .upgrades(true),
            "/ws",
            "501",
        ),
    ] {
        let Setup { server, _runner, .. } = setup(route).await;
        let (_, head) = ask(server.address, path).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
}

#[tokio::test]
async fn a_runner_that_stays_with_http_is_answered_for_in_http() {
    let runner = backend(|request| async move {
        assert_eq!(request.headers()["upgrade"], "echo/1, echo/2");
        let mut answer = http::Response::new(Full::from("stay"));
        *answer.status_mut() = http::StatusCode::UPGRADE_REQUIRED;
        answer
    })
    .await;
    let gateway = with_route(ws()).build().unwrap();
    add_http(&gateway, "r1", runner.address);
    let server = serve(&gateway).await;
    let (mut stream, head) = ask(server.address, "/ws").await;
    assert!(head.starts_with("HTTP/1.1 426 "), "{head}");
    hear(&mut stream, "stay").await;
    until_idle(&gateway).await;
}

#[tokio::test]
async fn who_cannot_be_reached_is_passed_over_also_by_this() {
    let Setup { gateway, server, _runner, .. } = setup(ws()).await;
    // One whose link cannot, one that nobody answers for.
    add(&gateway, "cannot", Mock::ok());
    add_http(&gateway, "nobody", SocketAddr::from(([127, 0, 0, 1], 1)));
    for _ in 0..10 {
        let (mut stream, head) = ask(server.address, "/ws").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        hear(&mut stream, "hello").await;
    }
}

#[tokio::test]
async fn nobody_who_can_is_501_and_no_runner_is_blamed() {
    let link = Mock::ok();
    let gateway = with_route(ws()).build().unwrap();
    let spec = RunnerSpec::new(RunnerId::new("cannot").unwrap());
    add_with(&gateway, spec, None, link.clone());
    let server = serve(&gateway).await;
    for _ in 0..5 {
        let (_, head) = ask(server.address, "/ws").await;
        assert!(head.starts_with("HTTP/1.1 501 "), "{head}");
    }
    assert!(link.seen.lock().unwrap().is_empty());
    let fleet = gateway.dispatcher().registry().fleet();
    assert_eq!(gateway.dispatcher().standing(&fleet.runners()[0]).as_str(), "good");
}

#[tokio::test]
async fn a_host_that_cannot_is_told_so() {
    let link = Mock::ok();
    let gateway = with_route(ws()).build().unwrap();
    add(&gateway, "r1", link);
    let mut request = as_client(get("/ws"));
    request.headers_mut().insert("connection", "upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    let answer = whole(&gateway, request).await;
    assert_eq!((answer.status, answer.error().1.as_deref()), (501, Some("upgrade_not_supported")));
}

#[tokio::test]
async fn an_offer_of_http_2_is_no_upgrade() {
    let link = Mock::ok();
    let gateway = with_route(GenericRoute::prefix("/")).build().unwrap();
    add(&gateway, "r1", link.clone());
    let mut request = as_client(get("/task"));
    request.headers_mut().insert("connection", "Upgrade, HTTP2-Settings".parse().unwrap());
    request.headers_mut().insert("upgrade", "h2c".parse().unwrap());
    request.headers_mut().insert("http2-settings", "AAMAAABk".parse().unwrap());
    assert_eq!(whole(&gateway, request).await.status, 200);
    assert!(!link.last().headers.contains_key("http2-settings"));
}
