//! A connection that the runner closed while it was idle is never an error.

mod support;

use bytes::Bytes;
use gateway_core::RunnerLink;
use gateway_transport_http::HttpLink;
use support::*;

/// Promises to keep the connection, and closes it after the answer.
async fn breaking_its_promise() -> Server {
    Server::start(|_, mut peer| async move {
        peer.request().await;
        peer.write("HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok").await;
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_to_a_server_that_closes_after_each() {
    let server = breaking_its_promise().await;
    let link = HttpLink::new(&server.url).unwrap();
    for number in 0..1000 {
        let answer = whole(link.send(post("/v1/chat/completions", r#"{"a":1}"#)).await).await;
        assert_eq!(answer.unwrap_or_else(|error| panic!("request {number}: {error}")).1, "ok");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_with_bodies_that_cannot_be_replayed() {
    let server = breaking_its_promise().await;
    let link = HttpLink::new(&server.url).unwrap();
    for number in 0..300 {
        let chunks = [Ok(Bytes::from_static(b"one")), Ok(Bytes::from_static(b"two"))];
        let request = http::Request::post("/").body(streamed(chunks)).unwrap();
        let answer = whole(link.send(request).await).await;
        assert_eq!(answer.unwrap_or_else(|error| panic!("request {number}: {error}")).1, "ok");
    }
}

/// Answers the first request of the first connection; takes the second and closes without a word; answers
/// on every later connection with what it was asked.
async fn closing_over_the_second() -> Server {
    Server::start(|number, mut peer| async move {
        let mut first = number == 0;
        while let Some(request) = peer.request().await {
            if number == 0 && !first {
                return;
            }
            first = false;
            let line = request.line();
            peer.write(answer(200, &format!("{line} {}", String::from_utf8_lossy(&request.body)))).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_request_that_meets_the_close_goes_out_again_whole() {
    let server = closing_over_the_second().await;
    let link = HttpLink::new(&server.url).unwrap();
    whole(link.send(get("/")).await).await.unwrap();
    let (_, body) = whole(link.send(post("/v1/x?y=z", "body")).await).await.unwrap();
    assert_eq!(body, "POST /v1/x?y=z HTTP/1.1 body");
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn with_every_header_that_it_had() {
    let (seen, mut heads) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |number, mut peer| {
        let seen = seen.clone();
        async move {
            let mut first = number == 0;
            while let Some(request) = peer.request().await {
                if !first {
                    seen.send(request.head).unwrap();
                }
                if number == 0 && !first {
                    return;
                }
                first = false;
                peer.write(answer(200, "ok")).await;
            }
        }
    })
    .await;
    let link = HttpLink::builder(&server.url)
        .header(http::header::AUTHORIZATION, http::HeaderValue::from_static("Bearer own"))
        .build()
        .unwrap();
    whole(link.send(get("/")).await).await.unwrap();
    let mut request = post("/v1/x", "body");
    for (name, value) in [("x-many", "one"), ("x-other", "1"), ("x-many", "two"), ("accept", "*/*")] {
        request.headers_mut().append(name, http::HeaderValue::from_static(value));
    }
    whole(link.send(request).await).await.unwrap();
    let (lost, again) = (heads.recv().await.unwrap(), heads.recv().await.unwrap());
    for line in ["x-many: one", "x-many: two", "x-other: 1", "accept: */*", "authorization: Bearer own"] {
        assert!(lost.contains(line), "{line} is missing in {lost}");
    }
    assert_eq!(again, lost);
}

#[tokio::test]
async fn so_does_a_stream_from_its_beginning() {
    let server = closing_over_the_second().await;
    let link = HttpLink::new(&server.url).unwrap();
    whole(link.send(get("/")).await).await.unwrap();
    let chunks = [Ok(Bytes::from_static(b"one ")), Ok(Bytes::from_static(b"two"))];
    let request = http::Request::post("/s").body(streamed(chunks)).unwrap();
    let (_, body) = whole(link.send(request).await).await.unwrap();
    assert_eq!(body, "POST /s HTTP/1.1 one two");
}

#[tokio::test]
async fn it_goes_out_again_once_only() {
    let server = Server::start(|number, mut peer| async move {
        peer.request().await;
        if number == 0 {
            peer.write(answer(200, "ok")).await;
            peer.request().await;
        }
    })
    .await;
    let link = HttpLink::new(&server.url).unwrap();
    whole(link.send(get("/")).await).await.unwrap();
    let error = soon("the second request", link.send(post("/", "{}"))).await.unwrap_err();
    assert!(!error.is_not_sent() && !error.is_request_body(), "{error}");
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_new_connection_that_breaks_is_lost_and_not_tried_again() {
    let server = Server::start(|_, mut peer| async move {
        peer.request().await;
    })
    .await;
    let link = HttpLink::new(&server.url).unwrap();
    let error = soon("the request", link.send(post("/", "{}"))).await.unwrap_err();
    assert!(!error.is_not_sent(), "{error}");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_request_that_was_seen_is_never_called_unsent() {
    let (seen, was_seen) = tokio::sync::oneshot::channel();
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let channels = std::sync::Mutex::new(Some((seen, gone)));
    let server = Server::start(move |_, mut peer| {
        let (seen, gone) = channels.lock().unwrap().take().unwrap();
        async move {
            peer.request().await;
            peer.write(answer(200, "ok")).await;
            peer.request().await;
            let _ = seen.send(());
            let _ = gone.await;
        }
    })
    .await;
    let link = HttpLink::new(&server.url).unwrap();
    whole(link.send(get("/")).await).await.unwrap();
    let second = link.send(post("/", "{}"));
    let close = async {
        was_seen.await.unwrap();
        server.stop_listening().await;
        let _ = go.send(());
    };
    let (error, ()) = soon("the second request", async { tokio::join!(second, close) }).await;
    let error = error.unwrap_err();
    // Nothing listens any more: the connection that was made to replay it was refused.
    assert!(!error.is_not_sent(), "{error}");
}
