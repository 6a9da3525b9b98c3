//! What bounds a generic request: its size if that is set, standing still, and time.

mod common;
mod generic_support;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use gateway_core::{Deadlines, LinkBody, LinkError};
use gateway_http::{Gateway, GenericRoute};
use generic_support::*;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

fn upload() -> (mpsc::Sender<Result<Bytes, LinkError>>, Request<Chunks>) {
    let (send, body) = mpsc::channel(4);
    (send, as_client(Request::post("/tasks/7/run").body(Chunks(body)).unwrap()))
}

fn asking(gateway: &Gateway, request: Request<Chunks>) -> tokio::task::JoinHandle<Whole> {
    let gateway = gateway.clone();
    tokio::spawn(async move { whole(&gateway, request).await })
}

fn tasks(route: GenericRoute) -> (Gateway, mpsc::Receiver<Call>) {
    let (link, calls) = ByHand::new();
    let gateway = with_route(route).max_body_bytes(10).build().unwrap();
    add(&gateway, "r1", link);
    (gateway, calls)
}

const PATH: &str = "/tasks/{id}/run";

#[tokio::test]
async fn nothing_limits_the_size_unless_it_is_set_here() {
    let (gateway, mut calls) = tasks(GenericRoute::openapi(document(&[PATH])));
    let (send, request) = upload();
    let answer = asking(&gateway, request);
    let mut call = calls.recv().await.unwrap();
    for _ in 0..100 {
        send.send(Ok(Bytes::from(vec![0; 1000]))).await.unwrap();
        assert!(call.request.body_mut().frame().await.unwrap().is_ok());
    }
    drop(send);
    call.drop_and_answer(Ok(json(200, "{}")));
    assert_eq!(answer.await.unwrap().status, 200);
}

#[tokio::test]
async fn what_is_set_is_kept_to() {
    let by_operation = format!(r#"{{"{PATH}": {{"post": {{"x-gateway": {{"max_body_bytes": 5}}}}}}}}"#);
    for route in [
        GenericRoute::prefix("/tasks").max_body_bytes(5),
        GenericRoute::openapi(parse(&by_operation)).max_body_bytes(1_000),
    ] {
        let (gateway, mut calls) = tasks(route);
        // Announced: no runner is asked.
        for (body, status) in [("123456", 413), ("12345", 200)] {
            let request = as_client(post("/tasks/7/run", body));
            let answer = tokio::spawn({
                let gateway = gateway.clone();
                async move { whole(&gateway, request).await }
            });
            if status == 200 {
                calls.recv().await.unwrap().drop_and_answer(Ok(json(200, "{}")));
            }
            assert_eq!(answer.await.unwrap().status, status);
        }
        // Not announced: it is noticed on the way.
        let (send, request) = upload();
        let answer = asking(&gateway, request);
        send.send(Ok("1234".into())).await.unwrap();
        send.send(Ok("56".into())).await.unwrap();
        let mut call = calls.recv().await.unwrap();
        assert!(call.request.body_mut().frame().await.unwrap().is_ok());
        let error = call.request.body_mut().frame().await.unwrap().unwrap_err();
        call.drop_and_answer(Err(LinkError::request_body(error)));
        let answer = answer.await.unwrap();
        assert_eq!((answer.status, answer.error().1.as_deref()), (413, Some("request_too_large")));
        assert!(answer.json()["error"]["message"].to_string().contains("5 bytes"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stands_still_while_it_is_wanted_is_408() {
    let (link, mut calls) = ByHand::new();
    let builder = with_route(GenericRoute::prefix("/tasks")).body_timeout(Duration::from_secs(10));
    let gateway = builder.build().unwrap();
    add(&gateway, "r1", link);
    let (send, request) = upload();
    let answer = asking(&gateway, request);
    let mut call = calls.recv().await.unwrap();
    // While nobody wants it, it may stand still.
    sleep(Duration::from_secs(60)).await;
    send.send(Ok("x".into())).await.unwrap();
    assert!(call.request.body_mut().frame().await.unwrap().is_ok());
    let before = Instant::now();
    let error = call.request.body_mut().frame().await.unwrap().unwrap_err();
    assert_eq!(before.elapsed().as_secs(), 10);
    call.drop_and_answer(Err(LinkError::request_body(error)));
    let answer = answer.await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
}

#[tokio::test(start_paused = true)]
async fn a_long_upload_is_no_fault_of_the_runner_s() {
    let deadlines = Deadlines { first_byte: Some(Duration::from_secs(10)), ..Deadlines::default() };
    let (link, mut calls) = ByHand::new();
    let gateway = with_route(GenericRoute::prefix("/tasks")).deadlines(deadlines).build().unwrap();
    add(&gateway, "r1", link);
    let (send, request) = upload();
    let answer = asking(&gateway, request);
    let mut call = calls.recv().await.unwrap();
    for _ in 0..10 {
        sleep(Duration::from_secs(8)).await;
        send.send(Ok("x".into())).await.unwrap();
        assert!(call.request.body_mut().frame().await.unwrap().is_ok());
    }
    assert!(!answer.is_finished());
    // From here on it is the runner that takes its time.
    let before = Instant::now();
    let answer = answer.await.unwrap();
    assert_eq!((answer.status, answer.error().1.as_deref()), (504, Some("upstream_timeout")));
    assert_eq!(before.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_stand_still_while_the_request_moves() {
    let route = GenericRoute::prefix("/tasks").idle_timeout(Duration::from_secs(10));
    let (gateway, mut calls) = tasks(route);
    let (send, request) = upload();
    let asking = tokio::spawn({
        let gateway = gateway.clone();
        async move { crate::common::send(&gateway, request).await }
    });
    let call = calls.recv().await.unwrap();
    let (_answer, body) = mpsc::channel(1);
    let mut request = call.answer(Ok(Response::new(LinkBody::new(Chunks(body)))));
    let mut response = asking.await.unwrap().into_body();
    let reading = tokio::spawn(async move { response.frame().await.unwrap().is_err() });
    for _ in 0..10 {
        sleep(Duration::from_secs(8)).await;
        send.send(Ok("x".into())).await.unwrap();
        assert!(request.body_mut().frame().await.unwrap().is_ok());
    }
    assert!(!reading.is_finished());
    let before = Instant::now();
    assert!(reading.await.unwrap(), "it is cut");
    assert_eq!(before.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn time_is_what_the_operation_says_or_else_the_route_or_else_the_gateway() {
    let timed = format!(r#"{{"{PATH}": {{"post": {{"x-gateway": {{"timeout_s": 3.5}}}}}}}}"#);
    let plain = || GenericRoute::openapi(document(&[PATH]));
    for (route, expected) in [
        (GenericRoute::openapi(parse(&timed)).timeout(Duration::from_secs(5)), 3_500),
        (plain().timeout(Duration::from_secs(5)), 5_000),
        (plain(), 7_000),
        (plain().first_byte_timeout(Duration::from_secs(2)), 2_000),
    ] {
        let (link, mut calls) = ByHand::new();
        let deadlines = Deadlines { total: Some(Duration::from_secs(7)), ..Deadlines::default() };
        let gateway = with_route(route).deadlines(deadlines).build().unwrap();
        add(&gateway, "r1", link);
        let before = Instant::now();
        let answer = tokio::spawn({
            let gateway = gateway.clone();
            async move { whole(&gateway, as_client(post("/tasks/7/run", "x"))).await }
        });
        let _held = calls.recv().await.unwrap();
        assert_eq!(answer.await.unwrap().status, 504);
        assert_eq!(before.elapsed().as_millis(), expected);
    }
}
