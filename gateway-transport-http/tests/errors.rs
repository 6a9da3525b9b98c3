//! Errors say honestly whether the runner can have seen the request, and whose fault it is.

mod support;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use gateway_core::RunnerLink;
use gateway_transport_http::HttpLink;
use support::*;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = HttpLink::new(&url).unwrap().send(get("/")).await.unwrap_err();
    assert!(error.is_not_sent(), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_name_that_nobody_has() {
    let link = HttpLink::new("http://no-such-runner.invalid:8000").unwrap();
    let error = soon("the look-up", link.send(get("/"))).await.unwrap_err();
    assert!(error.is_not_sent(), "{error}");
}

#[tokio::test]
async fn no_connection_in_time() {
    // A full accept queue lets the next connection hang.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    let full = loop {
        match tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
            Ok(stream) => queue.push(stream.unwrap()),
            Err(_) => break true,
        }
        if queue.len() > 64 {
            break false;
        }
    };
    if !full {
        eprintln!("this system has no limit to its accept queue: nothing to see here");
        return;
    }
    let link = HttpLink::builder(format!("http://{address}"))
        .connect_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let error = soon("the connect timeout", link.send(get("/"))).await.unwrap_err();
    assert!(error.is_not_sent() && error.to_string().contains("in time"), "{error}");
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_lost() {
    let server = Server::answering("SSH-2.0-OpenSSH_9.6\r\n\r\n").await;
    let error = HttpLink::new(&server.url).unwrap().send(get("/")).await.unwrap_err();
    assert!(!error.is_not_sent() && error.to_string().contains("HTTP"), "{error}");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn half_a_head_is_lost() {
    let server = Server::start(|_, mut peer| async move {
        peer.request().await;
        peer.write("HTTP/1.1 200 OK\r\ncontent-le").await;
    })
    .await;
    let error = HttpLink::new(&server.url).unwrap().send(get("/")).await.unwrap_err();
    assert!(!error.is_not_sent() && !error.is_request_body(), "{error}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_after_what_came() {
    for head in ["content-length: 100", "transfer-encoding: chunked"] {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n");
        let server = Server::start(move |_, mut peer| {
            let answer = answer.clone();
            async move {
                peer.request().await;
                peer.write(answer).await;
            }
        })
        .await;
        let link = HttpLink::new(&server.url).unwrap();
        let mut body = link.send(get("/")).await.unwrap().into_body();
        assert!(chunk(&mut body).await.unwrap().unwrap().ends_with(b"hello") || head.contains("length"));
        let error = loop {
            match chunk(&mut body).await.expect("a cut answer must not look whole") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(!error.is_not_sent() && !error.is_request_body(), "{error}");
        assert!(chunk(&mut body).await.is_none());
    }
}

#[tokio::test]
async fn a_broken_request_body_is_the_clients_fault() {
    let server = Server::answering(answer(200, "ok")).await;
    let link = HttpLink::new(&server.url).unwrap();
    // Over a new connection, and over a used one.
    for _ in 0..2 {
        let chunks = [Ok(Bytes::from_static(b"one")), Err(io::Error::other("the client has gone"))];
        let request = http::Request::post("/").body(streamed(chunks)).unwrap();
        let error = soon("the request", link.send(request)).await.unwrap_err();
        assert!(error.is_request_body(), "{error}");
        whole(link.send(get("/")).await).await.unwrap();
    }
}

#[tokio::test]
async fn switching_protocols_unasked_is_lost() {
    let server =
        Server::answering("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
            .await;
    let error = HttpLink::new(&server.url).unwrap().send(get("/")).await.unwrap_err();
    assert!(!error.is_not_sent(), "{error}");
}

#[tokio::test]
async fn any_status_is_an_answer() {
    for status in [200, 307, 401, 404, 429, 500, 503] {
        let server = Server::answering(answer(status, "words")).await;
        let link = HttpLink::new(&server.url).unwrap();
        assert_eq!(whole(link.send(get("/")).await).await.unwrap(), (status, "words".to_owned()));
    }
}

#[tokio::test]
async fn an_early_answer_to_a_long_request_arrives() {
    let server = Server::start(|_, mut peer| async move {
        // Reads the beginning only, as a server does that refuses what is too long.
        let mut some = [0; 4096];
        let _ = tokio::io::AsyncReadExt::read(&mut peer.stream, &mut some).await;
        peer.write(answer(413, "too long")).await;
        peer.ended().await;
    })
    .await;
    let link = HttpLink::new(&server.url).unwrap();
    let request =
        http::Request::post("/").body(gateway_core::RequestBody::from(vec![b'x'; 16 * 1024 * 1024])).unwrap();
    let (status, body) = whole(soon("the answer", link.send(request)).await).await.unwrap();
    assert_eq!((status, &*body), (413, "too long"));
}
