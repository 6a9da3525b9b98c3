//! When a generic request goes to another runner: never if that could do the work twice, and not once anything
//! of a streamed body was read.

mod common;
mod generic_support;

use bytes::Bytes;
use common::*;
use gateway_core::{LinkError, LinkResponse};
use gateway_http::{Gateway, GenericRoute};
use generic_support::*;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc;

/// Two runners at the ends of one channel.
fn two() -> (Gateway, mpsc::Receiver<Call>) {
    let (link, calls) = ByHand::new();
    let gateway = with_route(GenericRoute::prefix("/")).build().unwrap();
    add(&gateway, "r1", link.clone());
    add(&gateway, "r2", link);
    (gateway, calls)
}

fn status(status: u16) -> Result<LinkResponse, LinkError> {
    Ok(json(status, r#"{"said":"by the runner"}"#))
}

/// What the client gets, and whether a second runner was asked, when the first gives this answer.
async fn after(method: Method, first: Result<LinkResponse, LinkError>) -> (u16, bool) {
    let (gateway, mut calls) = two();
    let body = if method == Method::GET { Full::default() } else { Full::new(Bytes::from_static(b"kept")) };
    let request = as_client(Request::builder().method(method).uri("/task").body(body).unwrap());
    let asking = tokio::spawn(async move { whole(&gateway, request).await });
    calls.recv().await.unwrap().drop_and_answer(first);
    let second = tokio::spawn(async move {
        let Some(call) = calls.recv().await else { return false };
        call.drop_and_answer(status(200));
        true
    });
    let answer = asking.await.unwrap();
    // The gateway has gone, and with it the runners and their ends of the channel.
    (answer.status, second.await.unwrap())
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_again() {
    let lost = || Err(LinkError::lost("gone"));
    assert_eq!(after(Method::POST, lost()).await, (502, false));
    assert_eq!(after(Method::PATCH, lost()).await, (502, false));
    for idempotent in [Method::GET, Method::PUT, Method::DELETE] {
        assert_eq!(after(idempotent, lost()).await, (200, true));
    }
    // The runner's own words go through.
    assert_eq!(after(Method::POST, status(500)).await, (500, false));
    assert_eq!(after(Method::GET, status(500)).await, (200, true));
}

#[tokio::test]
async fn what_was_not_done_is_done_elsewhere() {
    for method in [Method::POST, Method::GET] {
        assert_eq!(after(method.clone(), Err(LinkError::not_sent("refused"))).await, (200, true));
        for declined in [429, 501, 503] {
            assert_eq!(after(method.clone(), status(declined)).await, (200, true), "{method} {declined}");
        }
    }
}

#[tokio::test]
async fn what_is_the_client_s_affair_goes_to_the_client() {
    for said in [400, 401, 403, 404, 409] {
        assert_eq!(after(Method::GET, status(said)).await, (said, false));
    }
}

#[tokio::test]
async fn a_document_may_say_what_can_be_repeated() {
    let (link, mut calls) = ByHand::new();
    let paths = r#"{"/search": {"post": {"x-gateway": {"repeatable": true}}}}"#;
    let gateway = with_route(GenericRoute::openapi(parse(paths))).build().unwrap();
    add(&gateway, "r1", link.clone());
    add(&gateway, "r2", link);
    let asking = tokio::spawn(async move { whole(&gateway, as_client(post("/search", "q"))).await });
    calls.recv().await.unwrap().drop_and_answer(Err(LinkError::lost("gone")));
    let second = calls.recv().await.unwrap();
    assert_eq!(second.request.body().len(), Some(1));
    second.drop_and_answer(status(200));
    assert_eq!(asking.await.unwrap().status, 200);
}

fn streamed() -> (mpsc::Sender<Result<Bytes, LinkError>>, Request<Chunks>) {
    let (send, body) = mpsc::channel(4);
    (send, as_client(Request::put("/upload").body(Chunks(body)).unwrap()))
}

#[tokio::test]
async fn a_stream_goes_elsewhere_while_it_is_unread() {
    for declined in [Err(LinkError::not_sent("refused")), Err(LinkError::lost("gone")), status(503)] {
        let (gateway, mut calls) = two();
        let (to_runner, request) = streamed();
        to_runner.send(Ok("whole".into())).await.unwrap();
        drop(to_runner);
        let asking = tokio::spawn(async move { whole(&gateway, request).await });
        calls.recv().await.unwrap().drop_and_answer(declined);
        let mut second = calls.recv().await.unwrap();
        let body = second.request.body_mut().collect().await.unwrap().to_bytes();
        assert_eq!(body, "whole");
        second.drop_and_answer(status(200));
        assert_eq!(asking.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_stream_that_was_begun_does_not() {
    for (said, told) in [(Err(LinkError::lost("gone")), 502), (status(503), 503), (status(500), 500)] {
        let (gateway, mut calls) = two();
        let (to_runner, request) = streamed();
        to_runner.send(Ok("beginning".into())).await.unwrap();
        let asking = tokio::spawn(async move { whole(&gateway, request).await });
        let mut first = calls.recv().await.unwrap();
        first.request.body_mut().frame().await.unwrap().unwrap();
        first.drop_and_answer(said);
        assert_eq!(asking.await.unwrap().status, told);
        assert!(calls.recv().await.is_none());
    }
}

#[tokio::test]
async fn how_much_is_kept_can_be_set() {
    for (kept, is_kept) in [(4, true), (3, false), (0, false)] {
        let (link, mut calls) = ByHand::new();
        let gateway = with_route(GenericRoute::prefix("/").kept_body_bytes(kept)).build().unwrap();
        add(&gateway, "r1", link);
        let asking = tokio::spawn(async move { whole(&gateway, as_client(post("/task", "1234"))).await });
        let call = calls.recv().await.unwrap();
        assert_eq!(call.request.body().can_replay(), is_kept, "{kept}");
        call.drop_and_answer(status(200));
        assert_eq!(asking.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_connection_that_dies_with_it_is_replaced_only_if_it_may_be_done_again() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    // Answers the first request of each connection, and closes at the second without a word.
    let heard = Arc::new(AtomicUsize::new(0));
    let count = heard.clone();
    let runner = listen(move |mut stream, _| {
        let heard = count.clone();
        async move {
            for answers in [true, false] {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else { return };
                    head.push(byte);
                }
                heard.fetch_add(1, Ordering::SeqCst);
                if answers {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                }
            }
        }
    })
    .await;
    for (method, second, times) in [(Method::GET, 200, 3), (Method::POST, 502, 2)] {
        let gateway = with_route(GenericRoute::prefix("/")).build().unwrap();
        add_http(&gateway, "r1", runner.address);
        heard.store(0, Ordering::SeqCst);
        for status in [200, second] {
            let request =
                Request::builder().method(&method).uri("/task").body(Full::<Bytes>::default()).unwrap();
            assert_eq!(whole(&gateway, as_client(request)).await.status, status, "{method}");
        }
        assert_eq!(heard.load(Ordering::SeqCst), times, "{method}");
    }
}

#[tokio::test]
async fn a_long_failure_goes_through_whole() {
    let (gateway, mut calls) = two();
    let long = Bytes::from(vec![b'x'; 200_000]);
    let mut answer = Response::new(gateway_core::LinkBody::full(long.clone()));
    *answer.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
    let asking = tokio::spawn(async move { whole(&gateway, as_client(post("/task", "x"))).await });
    calls.recv().await.unwrap().drop_and_answer(Ok(answer));
    let answer = asking.await.unwrap();
    assert_eq!((answer.status, answer.body), (500, long));
}

#[tokio::test]
async fn nobody_left_is_told_with_a_time_to_come_back() {
    let (gateway, mut calls) = two();
    let asking = tokio::spawn(async move { whole(&gateway, as_client(post("/task", "x"))).await });
    for _ in 0..2 {
        calls.recv().await.unwrap().drop_and_answer(status(503));
    }
    let answer = asking.await.unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
}
