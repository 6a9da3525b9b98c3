//! What of a head goes out and what of it comes back.

mod support;

use bytes::Bytes;
use gateway_core::{RequestBody, RunnerLink};
use gateway_transport_http::HttpLink;
use http::{HeaderName, HeaderValue, Version, header};
use support::*;

async fn seen_by(
    server: &Scripted,
    path: &str,
    link: &HttpLink,
    request: gateway_core::LinkRequest,
) -> Received {
    whole(link.send(request).await).await.unwrap();
    server.asked(path).pop().unwrap()
}

#[tokio::test]
async fn path_host_and_headers_as_given() {
    let server = Scripted::start([]).await;
    let link = HttpLink::new(&server.url).unwrap();
    let mut request = post("/v1/x?y=%20z", r#"{"a":1}"#);
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert("x-request-id", HeaderValue::from_static("req_1"));
    headers.append("x-twice", HeaderValue::from_static("1"));
    headers.append("x-twice", HeaderValue::from_static("2"));
    let seen = seen_by(&server, "/v1/x?y=%20z", &link, request).await;
    assert_eq!(seen.line(), "POST /v1/x?y=%20z HTTP/1.1");
    assert_eq!(seen.header("host"), server.url.strip_prefix("http://"));
    assert_eq!(seen.header("x-request-id"), Some("req_1"));
    assert_eq!(seen.head.matches("x-twice").count(), 2);
    assert_eq!(seen.header("content-length"), Some("7"));
    assert_eq!(seen.header("transfer-encoding"), None);
    assert_eq!(seen.body, r#"{"a":1}"#);
}

#[tokio::test]
async fn no_body_says_so_where_one_is_expected() {
    let server = Scripted::start([]).await;
    let link = HttpLink::new(&server.url).unwrap();
    assert_eq!(seen_by(&server, "/p", &link, post("/p", "")).await.header("content-length"), Some("0"));
    assert_eq!(seen_by(&server, "/g", &link, get("/g")).await.header("content-length"), None);
}

#[tokio::test]
async fn a_stream_of_unknown_length_is_chunked() {
    let server = Scripted::start([]).await;
    let link = HttpLink::new(&server.url).unwrap();
    // Over a new connection, and over a used one, where the beginning is kept.
    for path in ["/1", "/2"] {
        let chunks = ["one ", "two ", "three"].map(|chunk| Ok(Bytes::from_static(chunk.as_bytes())));
        let request = http::Request::post(path).body(streamed(chunks)).unwrap();
        let seen = seen_by(&server, path, &link, request).await;
        assert_eq!(seen.header("transfer-encoding"), Some("chunked"));
        assert_eq!(seen.body, "one two three");
    }
}

#[tokio::test]
async fn a_stream_longer_than_what_is_kept_goes_through_whole() {
    let server = Scripted::start([]).await;
    let link = HttpLink::new(&server.url).unwrap();
    for path in ["/1", "/2"] {
        let chunks = (0..100).map(|n| Ok(Bytes::from(vec![n; 10_000])));
        let request = http::Request::post(path).body(streamed(chunks)).unwrap();
        let seen = seen_by(&server, path, &link, request).await;
        assert!(
            seen.body.len() == 1_000_000 && seen.body.chunks(10_000).zip(0..).all(|(c, n)| c == [n; 10_000])
        );
    }
}

#[tokio::test]
async fn the_prefix_and_the_links_own_headers() {
    let server = Scripted::start([]).await;
    let link = HttpLink::builder(format!("{}/up/", server.url))
        .header(header::AUTHORIZATION, HeaderValue::from_static("Bearer engine"))
        .build()
        .unwrap();
    let mut request = get("/v1/models?a=b");
    request.headers_mut().insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer client"));
    let seen = seen_by(&server, "/up/v1/models?a=b", &link, request).await;
    assert_eq!(seen.header("authorization"), Some("Bearer engine"));
    assert_eq!(seen.head.matches("Bearer").count(), 1);
    assert!(!format!("{link:?}").contains("engine\""));
}

#[tokio::test]
async fn what_concerns_one_hop_stays_there() {
    let server = Server::answering(
        "HTTP/1.1 200 Fine\r\nconnection: keep-alive, x-private\r\nkeep-alive: timeout=5\r\nx-private: 1\r\n\
         te: trailers\r\ntrailer: x-t\r\nupgrade: h2c\r\nproxy-authenticate: Basic\r\ncontent-type: text/plain\r\n\
         retry-after: 3\r\nx-kept: 1\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    let link = HttpLink::new(&server.url).unwrap();
    let answer = link.send(get("/")).await.unwrap();
    let mut names: Vec<&str> = answer.headers().keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "content-type", "retry-after", "x-kept"]);

    let server = Server::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").await;
    let answer = HttpLink::new(&server.url).unwrap().send(get("/")).await.unwrap();
    assert!(answer.headers().is_empty(), "{:?}", answer.headers());
}

#[tokio::test]
async fn a_runner_cannot_take_the_length_away() {
    let server =
        Server::answering("HTTP/1.1 200 OK\r\nconnection: content-length\r\ncontent-length: 2\r\n\r\nok")
            .await;
    let answer = HttpLink::new(&server.url).unwrap().send(get("/")).await.unwrap();
    assert_eq!(answer.headers()["content-length"], "2");
}

#[tokio::test]
async fn chunks_come_as_they_are_sent_and_trailers_behind_them() {
    let (more, wanted) = tokio::sync::mpsc::channel::<()>(1);
    let channel = std::sync::Mutex::new(Some(wanted));
    let server = Server::start(move |_, mut peer| {
        let mut wanted = channel.lock().unwrap().take().unwrap();
        async move {
            peer.request().await;
            peer.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            for piece in ["3\r\none\r\n", "3\r\ntwo\r\n", "0\r\nx-t: 1\r\n\r\n"] {
                wanted.recv().await.unwrap();
                peer.write(piece).await;
            }
            peer.ended().await;
        }
    })
    .await;
    let link = HttpLink::new(&server.url).unwrap();
    let mut body =
        link.send(http::Request::get("/").body(RequestBody::empty()).unwrap()).await.unwrap().into_body();
    for expected in ["one", "two"] {
        // Each chunk is asked for only after the one before has arrived.
        more.send(()).await.unwrap();
        assert_eq!(chunk(&mut body).await.unwrap().unwrap(), expected);
    }
    more.send(()).await.unwrap();
    let frame = soon("the trailers", http_body_util::BodyExt::frame(&mut body)).await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap()["x-t"], "1");
    assert!(chunk(&mut body).await.is_none());
}
