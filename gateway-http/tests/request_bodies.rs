//! Bodies are bounded in size and in time, and come in as many pieces as they like.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use gateway_core::LinkError;
use http::Request;
use http_body_util::BodyExt;
use tokio::sync::mpsc;

const BODY: &[u8] = br#"{"model":"m","x":"0123456789"}"#;

/// A body over a channel; its sender decides when it goes on.
fn piecewise() -> (mpsc::Sender<Result<Bytes, LinkError>>, Request<Chunks>) {
    let (send, receive) = mpsc::channel(64);
    let request = Request::post("/v1/chat/completions").body(Chunks(receive)).unwrap();
    (send, as_client(request))
}

#[tokio::test]
async fn pieces_are_put_together_in_order() {
    let link = Mock::ok();
    let gateway = with_runner(&link);
    for size in [1, 2, 7, BODY.len()] {
        let (send, request) = piecewise();
        for piece in BODY.chunks(size) {
            send.try_send(Ok(Bytes::from_static(piece))).unwrap();
        }
        drop(send);
        assert_eq!(whole(&gateway, request).await.status, 200);
        assert_eq!(link.last().body, BODY);
    }
}

#[tokio::test]
async fn one_piece_is_not_copied() {
    let link = Mock::ok();
    let gateway = with_runner(&link);
    let (send, request) = piecewise();
    let sent = Bytes::copy_from_slice(BODY);
    send.try_send(Ok(sent.clone())).unwrap();
    drop(send);
    assert_eq!(whole(&gateway, request).await.status, 200);
    assert_eq!(link.last().body.as_ptr(), sent.as_ptr());
}

#[tokio::test]
async fn too_much_is_413_whether_announced_or_not() {
    let link = Mock::ok();
    let gateway = builder().max_body_bytes(BODY.len()).build().unwrap();
    join(&gateway, "r1", &["m"], &link);
    // Exactly as much as is allowed.
    assert_eq!(whole(&gateway, chat(BODY)).await.status, 200);

    // One byte more, seen by its announcement: nothing of it is read.
    let (send, mut request) = piecewise();
    request.headers_mut().insert("content-length", (BODY.len() + 1).into());
    let answer = whole(&gateway, request).await;
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
    assert_eq!(answer.error().1.as_deref(), Some("request_too_large"));
    assert!(send.is_closed());

    // Not announced: refused at the piece that goes over.
    let (send, request) = piecewise();
    send.try_send(Ok(Bytes::from_static(BODY))).unwrap();
    send.try_send(Ok(Bytes::from_static(b" "))).unwrap();
    assert_eq!(whole(&gateway, request).await.status, 413);

    // HTTP/2 has no such header.
    let (_send, mut request) = piecewise();
    request.headers_mut().insert("content-length", (BODY.len() + 1).into());
    *request.version_mut() = http::Version::HTTP_2;
    assert_eq!(whole(&gateway, request).await.header("connection"), None);
    assert_eq!(link.seen.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stands_still_is_408_and_one_that_moves_is_not() {
    let link = Mock::ok();
    let gateway = builder().body_timeout(Duration::from_secs(10)).build().unwrap();
    join(&gateway, "r1", &["m"], &link);

    let (sender, request) = piecewise();
    let slow = async {
        for piece in BODY.chunks(5) {
            tokio::time::sleep(Duration::from_secs(9)).await;
            sender.send(Ok(Bytes::from_static(piece))).await.unwrap();
        }
        drop(sender);
    };
    let (answer, ()) = tokio::join!(whole(&gateway, request), slow);
    assert_eq!(answer.status, 200);

    let (sender, request) = piecewise();
    sender.send(Ok(Bytes::from_static(&BODY[..3]))).await.unwrap();
    let before = tokio::time::Instant::now();
    let answer = whole(&gateway, request).await;
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
    assert_eq!(before.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn a_body_that_breaks_off_reaches_no_runner() {
    let link = Mock::ok();
    let gateway = with_runner(&link);
    let (send, request) = piecewise();
    send.try_send(Ok(Bytes::from_static(&BODY[..3]))).unwrap();
    send.try_send(Err(LinkError::lost("client gone"))).unwrap();
    assert_eq!(whole(&gateway, request).await.status, 400);
    assert!(link.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn trailers_are_no_part_of_the_body() {
    let link = Mock::ok();
    let gateway = with_runner(&link);
    let trailers = async { Some(Ok(http::HeaderMap::new())) };
    let body = http_body_util::Full::new(Bytes::from_static(BODY)).with_trailers(trailers);
    let request = as_client(Request::post("/v1/chat/completions").body(body).unwrap());
    assert_eq!(whole(&gateway, request).await.status, 200);
    assert_eq!(link.last().body, BODY);
}
