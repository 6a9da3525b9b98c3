//! A client that waits for leave to send its body gets it when a runner takes the body, and not before.

mod common;
mod generic_support;

use common::*;
use gateway_core::QueuePolicy;
use gateway_http::{Gateway, GenericRoute};
use generic_support::*;
use http::Response;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends a head that asks for leave, and gives the line that comes back.
async fn ask(server: &Listening, length: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /task HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {CLIENT}\r\nexpect: 100-continue\r\n{length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let line = line(&mut stream).await;
    (stream, line)
}

async fn line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(line).unwrap()
}

async fn gateway() -> (Gateway, Listening) {
    let gateway = with_route(GenericRoute::prefix("/")).queue(QueuePolicy::OFF).build().unwrap();
    let server = serve(&gateway).await;
    (gateway, server)
}

#[tokio::test]
async fn leave_is_given_when_a_runner_reads() {
    let runner = backend(|request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Full::new(body))
    })
    .await;
    let (gateway, server) = gateway().await;
    add_http(&gateway, "r1", runner.address);
    for length in ["content-length: 5", "transfer-encoding: chunked"] {
        let (mut stream, answer) = ask(&server, length).await;
        assert_eq!(answer, "HTTP/1.1 100 Continue\r\n");
        assert_eq!(line(&mut stream).await, "\r\n");
        let body = if length.starts_with('c') { "12345" } else { "5\r\n12345\r\n0\r\n\r\n" };
        stream.write_all(body.as_bytes()).await.unwrap();
        assert_eq!(line(&mut stream).await, "HTTP/1.1 200 OK\r\n");
    }
}

#[tokio::test]
async fn without_a_runner_there_is_no_leave() {
    let (_gateway, server) = gateway().await;
    let (_, answer) = ask(&server, "transfer-encoding: chunked").await;
    assert_eq!(answer, "HTTP/1.1 503 Service Unavailable\r\n");
}
