//! Bodies of generic requests are passed on as they come, both ways, and no faster than they are taken.

mod common;
mod generic_support;

use std::sync::atomic::Ordering;

use bytes::Bytes;
use common::*;
use gateway_core::{LinkBody, LinkResponse};
use gateway_http::GenericRoute;
use generic_support::*;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

fn upload<B>(body: B) -> Request<B> {
    as_client(Request::post("/tasks/7/run").body(body).unwrap())
}

fn tasks() -> gateway_http::Gateway {
    with_route(GenericRoute::openapi(document(&["/tasks/{id}/run"]))).build().unwrap()
}

fn streaming(
    body: impl http_body::Body<Data = Bytes, Error = gateway_core::LinkError> + Send + 'static,
) -> LinkResponse {
    Response::new(LinkBody::new(body))
}

#[tokio::test]
async fn both_bodies_move_while_neither_has_ended() {
    let (link, mut calls) = ByHand::new();
    let gateway = tasks();
    add(&gateway, "r1", link);
    let (to_runner, body) = mpsc::channel(1);
    let asking = tokio::spawn({
        let gateway = gateway.clone();
        async move { send(&gateway, upload(Chunks(body))).await }
    });
    to_runner.send(Ok("one".into())).await.unwrap();
    let call = calls.recv().await.unwrap();
    let (to_client, answer) = mpsc::channel(1);
    // The head goes out although not a byte of the body is there.
    let mut request = call.answer(Ok(streaming(Chunks(answer))));
    let response = asking.await.unwrap();
    assert_eq!(response.status(), 200);
    let mut response = response.into_body();

    let mut next = async || request.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(next().await, "one");
    to_client.send(Ok("eins".into())).await.unwrap();
    assert_eq!(next_chunk(&mut response).await.unwrap(), "eins");
    to_runner.send(Ok("two".into())).await.unwrap();
    assert_eq!(next().await, "two");
    to_client.send(Ok("zwei".into())).await.unwrap();
    assert_eq!(next_chunk(&mut response).await.unwrap(), "zwei");

    drop(to_runner);
    assert!(request.body_mut().frame().await.is_none());
    assert_eq!(gateway.dispatcher().in_flight(), 1);
    drop(to_client);
    assert_eq!(next_chunk(&mut response).await, None);
    assert_eq!(gateway.dispatcher().in_flight(), 0);
}

#[tokio::test]
async fn nothing_is_read_ahead_of_the_runner() {
    let (link, mut calls) = ByHand::new();
    let gateway = tasks();
    add(&gateway, "r1", link);
    let (body, taken) = Endless::new(1000);
    let _asking = tokio::spawn(async move { send(&gateway, upload(body)).await });
    let mut call = calls.recv().await.unwrap();
    assert_eq!(taken.load(Ordering::SeqCst), 0);
    for read in 1..=3 {
        call.request.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(taken.load(Ordering::SeqCst), read);
    }
}

#[tokio::test]
async fn nothing_is_read_ahead_of_the_client() {
    let (link, mut calls) = ByHand::new();
    let gateway = tasks();
    add(&gateway, "r1", link);
    let (body, taken) = Endless::new(1000);
    let asking = tokio::spawn(async move { send(&gateway, upload(http_body_util::Full::from("x"))).await });
    calls.recv().await.unwrap().answer(Ok(streaming(body)));
    let mut response = asking.await.unwrap().into_body();
    assert_eq!(taken.load(Ordering::SeqCst), 0);
    for read in 1..=3 {
        next_chunk(&mut response).await.unwrap();
        assert_eq!(taken.load(Ordering::SeqCst), read);
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_upload_along() {
    let (link, mut calls) = ByHand::new();
    let gateway = tasks();
    add(&gateway, "r1", link);
    let (to_runner, body) = mpsc::channel(1);
    let asking = tokio::spawn({
        let gateway = gateway.clone();
        async move { send(&gateway, upload(Chunks(body))).await }
    });
    let call = calls.recv().await.unwrap();
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    assert_eq!(gateway.dispatcher().in_flight(), 0);
    drop(call);
    assert!(to_runner.is_closed());
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_cut_and_not_mended() {
    let (link, mut calls) = ByHand::new();
    let gateway = tasks();
    add(&gateway, "r1", link);
    let (to_client, answer) = mpsc::channel(2);
    let asking = tokio::spawn(async move { send(&gateway, as_client(get("/tasks/7/run"))).await });
    let mut head = streaming(Chunks(answer));
    head.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
    calls.recv().await.unwrap().answer(Ok(head));
    let response = asking.await.unwrap();
    // Not even an event stream is touched.
    assert!(!response.headers().contains_key("cache-control"));
    let mut response = response.into_body();
    to_client.send(Ok("data: 1\n\n".into())).await.unwrap();
    assert_eq!(next_chunk(&mut response).await.unwrap(), "data: 1\n\n");
    to_client.send(Err(gateway_core::LinkError::lost("gone"))).await.unwrap();
    assert!(response.frame().await.unwrap().is_err());
}
