//! Letting go of a request is seen by the runner at once.

mod support;

use std::time::Duration;

use gateway_core::RunnerLink;
use gateway_transport_http::HttpLink;
use support::*;
use tokio::sync::mpsc;

/// From the cancel until the runner knows.
const BOUND: Duration = Duration::from_millis(100);

/// Reads a request, writes `beginning`, says so, then waits for the end of the connection and says so.
async fn watching(beginning: &'static str) -> (Server, mpsc::Receiver<&'static str>) {
    let (tell, told) = mpsc::channel(4);
    let server = Server::start(move |_, mut peer| {
        let tell = tell.clone();
        async move {
            peer.request().await;
            peer.write(beginning).await;
            let _ = tell.send("begun").await;
            peer.ended().await;
            let _ = tell.send("ended").await;
        }
    })
    .await;
    (server, told)
}

async fn ends(told: &mut mpsc::Receiver<&'static str>) {
    let ended = tokio::time::timeout(BOUND, told.recv()).await;
    assert_eq!(ended.expect("the runner was not told in time"), Some("ended"));
}

#[tokio::test]
async fn before_the_head() {
    let (server, mut told) = watching("").await;
    let link = HttpLink::new(&server.url).unwrap();
    let mut request = Box::pin(link.send(post("/v1/chat/completions", "{}")));
    tokio::select! {
        _ = &mut request => panic!("there is no answer"),
        told = told.recv() => assert_eq!(told, Some("begun")),
    }
    drop(request);
    ends(&mut told).await;
}

#[tokio::test]
async fn before_the_head_on_a_used_connection() {
    let (tell, mut told) = mpsc::channel(4);
    let server = Server::start(move |_, mut peer| {
        let tell = tell.clone();
        async move {
            peer.request().await;
            peer.write(answer(200, "ok")).await;
            peer.request().await;
            let _ = tell.send("begun").await;
            peer.ended().await;
            let _ = tell.send("ended").await;
        }
    })
    .await;
    let link = HttpLink::new(&server.url).unwrap();
    whole(link.send(get("/")).await).await.unwrap();
    let mut request = Box::pin(link.send(post("/", "{}")));
    tokio::select! {
        _ = &mut request => panic!("there is no answer"),
        told = told.recv() => assert_eq!(told, Some("begun")),
    }
    drop(request);
    ends(&mut told).await;
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn between_head_and_body() {
    let (server, mut told) = watching("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let link = HttpLink::new(&server.url).unwrap();
    let answer = link.send(post("/", "{}")).await.unwrap();
    assert_eq!(told.recv().await, Some("begun"));
    drop(answer);
    ends(&mut told).await;
}

#[tokio::test]
async fn in_the_middle_of_the_body() {
    for beginning in [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello",
    ] {
        let (server, mut told) = watching(beginning).await;
        let link = HttpLink::new(&server.url).unwrap();
        let mut body = link.send(post("/", "{}")).await.unwrap().into_body();
        assert_eq!(chunk(&mut body).await.unwrap().unwrap(), "hello");
        assert_eq!(told.recv().await, Some("begun"));
        drop(body);
        ends(&mut told).await;
        assert_eq!(server.connections(), 1);
    }
}

#[tokio::test]
async fn closing_the_link_ends_what_is_in_flight_though_nobody_reads_it() {
    let (server, mut told) = watching("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello").await;
    let link = HttpLink::new(&server.url).unwrap();
    let mut body = link.send(post("/", "{}")).await.unwrap().into_body();
    assert_eq!(chunk(&mut body).await.unwrap().unwrap(), "hello");
    assert_eq!(told.recv().await, Some("begun"));
    link.close();
    ends(&mut told).await;
    assert!(chunk(&mut body).await.unwrap().is_err(), "a cut answer must not look whole");
}

#[tokio::test]
async fn closing_the_link_wakes_who_waits() {
    let (server, mut told) = watching("").await;
    let link = std::sync::Arc::new(HttpLink::new(&server.url).unwrap());
    let request = {
        let link = link.clone();
        tokio::spawn(async move { link.send(post("/", "{}")).await })
    };
    assert_eq!(told.recv().await, Some("begun"));
    link.close();
    let error = soon("the request", request).await.unwrap().unwrap_err();
    assert!(!error.is_not_sent(), "{error}");
    ends(&mut told).await;
}

#[tokio::test]
async fn a_reader_that_stalls_stalls_only_the_one_who_sends_to_it() {
    // The server writes until the socket takes no more, and tells how much that was.
    let (tell, mut told) = mpsc::channel(4);
    let server = Server::start(move |number, mut peer| {
        let tell = tell.clone();
        async move {
            if number > 0 {
                while peer.request().await.is_some() {
                    peer.write(answer(200, "ok")).await;
                }
                return;
            }
            peer.request().await;
            peer.write("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
            let (block, mut sent) = (vec![b'x'; 64 * 1024], 0);
            loop {
                match tokio::time::timeout(Duration::from_millis(200), peer.stream.writable()).await {
                    Err(_) => break,
                    Ok(_) => sent += peer.stream.try_write(&block).unwrap_or(0),
                }
            }
            let _ = tell.send(sent).await;
            peer.ended().await;
        }
    })
    .await;
    let link = HttpLink::new(&server.url).unwrap();
    let stalled = link.send(get("/")).await.unwrap();
    let sent = soon("the flood", told.recv()).await.unwrap();
    // What the two sockets hold, and not what this process holds: that would have no end.
    assert!(sent < 64 * 1024 * 1024, "{sent} bytes were taken though nobody reads");
    assert_eq!(whole(link.send(get("/")).await).await.unwrap().1, "ok");
    drop(stalled);
}
