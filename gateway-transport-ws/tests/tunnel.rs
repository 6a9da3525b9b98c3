//! Requests through the tunnel: what reaches the engine, what comes back, and how either is cancelled.

mod support;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gateway_core::{LinkBody, LinkError, Runner, RunnerLink};
use http_body_util::BodyExt;
use support::{Engine, Gateway, TunnelRunner, body, dropped, lock, next_chunk, post, soon, upload};
use tokio::sync::{mpsc, oneshot};

async fn joined(streams: u32, engine: Arc<dyn RunnerLink>) -> (Gateway, TunnelRunner, Arc<Runner>) {
    let gateway = Gateway::default().await;
    let tunnel = TunnelRunner::start(&gateway, "r1", streams, engine).await;
    let runner = gateway.runner("r1").unwrap();
    (gateway, tunnel, runner)
}

async fn text(body: LinkBody) -> String {
    String::from_utf8(soon(body.collect()).await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_request_arrives_as_it_was_sent_and_so_does_its_answer() {
    let engine = Engine::answering(async |request| {
        let (head, body) = request.into_parts();
        assert_eq!(head.method, http::Method::POST);
        assert_eq!(head.uri, "/v1/chat/completions?a=b");
        assert_eq!(head.headers["x-one"], "1");
        assert_eq!(body.len(), Some(100_000), "held, so that it can be sent again");
        let bytes = body.collect().await.map_err(LinkError::request_body)?.to_bytes();
        let answer = http::Response::builder()
            .status(418)
            .header("x-two", "2")
            .header("connection", "keep-alive")
            .header("x-runner-fault", "lost");
        Ok(answer.body(LinkBody::full(bytes)).unwrap())
    });
    let (_gateway, _tunnel, runner) = joined(4, engine).await;
    let sent = "x".repeat(100_000);
    let mut request = post(sent.clone());
    request.headers_mut().insert("x-one", "1".parse().unwrap());
    let answer = soon(runner.link().send(request)).await.unwrap();
    assert_eq!(answer.status(), 418);
    assert_eq!(answer.headers()["x-two"], "2");
    assert!(!answer.headers().contains_key("connection"));
    assert!(!answer.headers().contains_key("x-runner-fault"), "an engine cannot forge it");
    assert_eq!(text(answer.into_body()).await, sent);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_body_and_an_answer_without_one() {
    let engine = Engine::answering(async |request| {
        assert!(request.body().is_empty());
        Ok(http::Response::new(LinkBody::full(Bytes::new())))
    });
    let (_gateway, _tunnel, runner) = joined(4, engine).await;
    let request = http::Request::get("/health").body(gateway_core::RequestBody::empty()).unwrap();
    let answer = soon(runner.link().send(request)).await.unwrap();
    assert_eq!(text(answer.into_body()).await, "");
}

#[tokio::test(start_paused = true)]
async fn chunks_come_as_they_are_written() {
    let (sender, written) = body();
    let written = Mutex::new(Some(written));
    let engine = Engine::answering(move |_| {
        let written = lock(&written).take().unwrap();
        async { Ok(http::Response::new(written)) }
    });
    let (_gateway, _tunnel, runner) = joined(4, engine).await;
    let mut body = soon(runner.link().send(post("{}"))).await.unwrap().into_body();
    for nth in 0..1000 {
        let chunk = Bytes::from(format!("data: {nth}\n\n"));
        // Empty chunks say nothing; HTTP/2 would count them, and end the connection at the hundredth.
        sender.send(Ok(Bytes::new())).await.unwrap();
        sender.send(Ok(chunk.clone())).await.unwrap();
        assert_eq!(soon(next_chunk(&mut body)).await.unwrap().unwrap(), chunk);
    }
    drop(sender);
    assert!(soon(next_chunk(&mut body)).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_upload_streams_and_is_held_back_by_an_engine_that_does_not_read() {
    let (to_test, mut bodies) = mpsc::channel(1);
    let (answer_sender, written) = body();
    let written = Mutex::new(Some(written));
    let engine = Engine::answering(move |request: gateway_core::LinkRequest| {
        let (to_test, written) = (to_test.clone(), lock(&written).take().unwrap());
        async move {
            // Answers first, reads later.
            to_test.send(request.into_body()).await.unwrap();
            Ok(http::Response::new(written))
        }
    });
    let (_gateway, _tunnel, runner) = joined(4, engine).await;
    let (sender, uploaded) = upload();
    let link = runner.link().clone();
    let answer = tokio::spawn(async move {
        let answer = link.send(http::Request::post("/v1/audio").body(uploaded).unwrap()).await.unwrap();
        answer.into_body().collect().await.unwrap().to_bytes()
    });
    let received = soon(bodies.recv()).await.unwrap();
    let chunk = Bytes::from(vec![7; 10_000]);
    let mut sent = 0;
    loop {
        tokio::select! {
            biased;
            done = sender.send(Ok(chunk.clone())) => done.unwrap(),
            // Under a paused clock: only when nothing else can happen any more.
            () = tokio::time::sleep(std::time::Duration::from_secs(1)) => break,
        }
        sent += chunk.len();
        assert!(sent < 1_000_000, "nothing holds the upload back");
    }
    assert!(sent >= 60_000, "{sent}");
    let reading = tokio::spawn(async move { received.collect().await.unwrap().to_bytes().len() });
    sender.send(Ok(chunk.clone())).await.unwrap();
    drop(sender);
    assert_eq!(soon(reading).await.unwrap(), sent + chunk.len());
    answer_sender.send(Ok("ok".into())).await.unwrap();
    drop(answer_sender);
    assert_eq!(soon(answer).await.unwrap(), "ok");
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_upload_breaks_off_is_to_blame_and_the_engine_learns_it() {
    let (to_test, ends) = oneshot::channel();
    let to_test = Mutex::new(Some(to_test));
    let engine = Engine::answering(move |request: gateway_core::LinkRequest| {
        let to_test = lock(&to_test).take().unwrap();
        async move {
            let failed = request.into_body().collect().await.is_err();
            to_test.send(failed).unwrap();
            Err(LinkError::lost("the body broke off"))
        }
    });
    let (_gateway, _tunnel, runner) = joined(4, engine).await;
    let (sender, uploaded) = upload();
    sender.send(Ok("begin".into())).await.unwrap();
    let link = runner.link().clone();
    let request = http::Request::post("/v1/audio").body(uploaded).unwrap();
    let answer = tokio::spawn(async move { link.send(request).await });
    sender.send(Err("the client went away".into())).await.unwrap();
    let error = soon(answer).await.unwrap().unwrap_err();
    assert!(error.is_request_body(), "{error}");
    assert!(soon(ends).await.unwrap());
}

/// An engine that never answers, and tells when it is asked and when it is given up.
fn silent() -> (Arc<dyn RunnerLink>, mpsc::Receiver<oneshot::Receiver<()>>) {
    let (to_test, asked) = mpsc::channel(64);
    let engine = Engine::answering(move |_| {
        let to_test = to_test.clone();
        async move {
            let (_held, given_up) = oneshot::channel::<()>();
            to_test.send(given_up).await.unwrap();
            std::future::pending().await
        }
    });
    (engine, asked)
}

#[tokio::test(start_paused = true)]
async fn a_cancel_before_the_head_reaches_the_engine() {
    let (engine, mut asked) = silent();
    let (_gateway, _tunnel, runner) = joined(4, engine).await;
    let link = runner.link().clone();
    let sending = tokio::spawn(async move { link.send(post("{}")).await.map(|_| ()) });
    let given_up = soon(asked.recv()).await.unwrap();
    sending.abort();
    assert!(soon(given_up).await.is_err(), "its future was dropped");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_in_the_middle_reaches_the_engine_and_others_go_on() {
    let (first, first_body) = body();
    let (second, second_body) = body();
    let bodies = Mutex::new(vec![second_body, first_body]);
    let engine = Engine::answering(move |_| {
        let body = lock(&bodies).pop().unwrap();
        async { Ok(http::Response::new(body)) }
    });
    let (_gateway, _tunnel, runner) = joined(4, engine).await;
    let mut cancelled = soon(runner.link().send(post("{}"))).await.unwrap().into_body();
    let mut other = soon(runner.link().send(post("{}"))).await.unwrap().into_body();
    first.send(Ok("one".into())).await.unwrap();
    soon(next_chunk(&mut cancelled)).await.unwrap().unwrap();
    drop(cancelled);
    dropped(&first).await;
    second.send(Ok("two".into())).await.unwrap();
    assert_eq!(soon(next_chunk(&mut other)).await.unwrap().unwrap(), "two");
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_leaves_before_the_runner_has_looked_does_not_end_the_tunnel() {
    let (engine, mut asked) = silent();
    let (_gateway, tunnel, runner) = joined(64, engine).await;
    for _ in 0..3 {
        tunnel.frozen.send_replace(true);
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..60 {
            let link = runner.link().clone();
            crowd.spawn(async move { link.send(post("{}")).await.map(|_| ()) });
        }
        settle().await;
        crowd.shutdown().await;
        settle().await;
        tunnel.frozen.send_replace(false);
        settle().await;
    }
    while asked.try_recv().is_ok() {}
    let link = runner.link().clone();
    let sending = tokio::spawn(async move { link.send(post("{}")).await.map(|_| ()) });
    let given_up = soon(asked.recv()).await.unwrap();
    assert!(!sending.is_finished(), "the tunnel still works");
    drop(given_up);
    sending.abort();
}

#[tokio::test(start_paused = true)]
async fn what_the_engine_did_wrong_is_told_as_if_it_had_been_asked_directly() {
    let faults = Mutex::new(vec![LinkError::lost("mid-answer"), LinkError::not_sent("refused")]);
    let engine = Engine::answering(move |_| {
        let fault = lock(&faults).pop().unwrap();
        async { Err(fault) }
    });
    let (_gateway, _tunnel, runner) = joined(4, engine).await;
    let error = soon(runner.link().send(post("{}"))).await.unwrap_err();
    assert!(error.is_not_sent(), "{error}");
    let error = soon(runner.link().send(post("{}"))).await.unwrap_err();
    assert!(!error.is_not_sent() && !error.is_request_body(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_is_an_error_and_not_an_end() {
    let (sender, written) = body();
    let written = Mutex::new(Some(written));
    let engine = Engine::answering(move |_| {
        let written = lock(&written).take().unwrap();
        async { Ok(http::Response::new(written)) }
    });
    let (_gateway, _tunnel, runner) = joined(4, engine).await;
    let mut body = soon(runner.link().send(post("{}"))).await.unwrap().into_body();
    sender.send(Ok("one".into())).await.unwrap();
    soon(next_chunk(&mut body)).await.unwrap().unwrap();
    sender.send(Err("the engine died")).await.unwrap();
    let error = soon(next_chunk(&mut body)).await.unwrap().unwrap_err();
    assert!(!error.is_not_sent(), "{error}");
    assert!(soon(next_chunk(&mut body)).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_is_cut_leaves_and_fails_what_it_had() {
    let (engine, mut asked) = silent();
    let (gateway, tunnel, runner) = joined(4, engine).await;
    let link = runner.link().clone();
    let sending = tokio::spawn(async move { link.send(post("{}")).await.map(|_| ()) });
    let given_up = soon(asked.recv()).await.unwrap();
    drop(tunnel);
    let error = soon(sending).await.unwrap().unwrap_err();
    assert!(!error.is_not_sent(), "{error}");
    assert!(soon(given_up).await.is_err());
    gateway.until(|fleet| fleet.runner("r1").is_none()).await;
    let error = soon(runner.link().send(post("{}"))).await.unwrap_err();
    assert!(error.is_not_sent(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_drains_finishes_what_it_has_and_refuses_the_rest() {
    let (sender, written) = body();
    let written = Mutex::new(Some(written));
    let engine = Engine::answering(move |_| {
        let written = lock(&written).take().expect("nothing new reaches the engine");
        async { Ok(http::Response::new(written)) }
    });
    let (gateway, tunnel, runner) = joined(4, engine).await;
    let mut body = soon(runner.link().send(post("{}"))).await.unwrap().into_body();
    tunnel.finish.cancel();
    // Once the goodbye is here, or while it is on its way.
    let error = soon(runner.link().send(post("{}"))).await.unwrap_err();
    assert!(error.is_not_sent(), "{error}");
    sender.send(Ok("one".into())).await.unwrap();
    assert_eq!(soon(next_chunk(&mut body)).await.unwrap().unwrap(), "one");
    drop(sender);
    assert!(soon(next_chunk(&mut body)).await.is_none());
    drop(body);
    gateway.until(|fleet| fleet.runner("r1").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_replaced_tunnel_finishes_what_it_has() {
    let (sender, written) = body();
    let written = Mutex::new(Some(written));
    let engine = Engine::answering(move |_| {
        let written = lock(&written).take().unwrap();
        async { Ok(http::Response::new(written)) }
    });
    let (gateway, _old, runner) = joined(4, engine).await;
    let reservation = runner.try_reserve().unwrap();
    let mut body = soon(runner.link().send(post("{}"))).await.unwrap().into_body();
    let _new = TunnelRunner::start(&gateway, "r1", 4, silent().0).await;
    soon(runner.left()).await;
    for _ in 0..3 {
        sender.send(Ok("one".into())).await.unwrap();
        assert_eq!(soon(next_chunk(&mut body)).await.unwrap().unwrap(), "one");
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    // It has five seconds; then the connection is closed under it.
    let error = soon(next_chunk(&mut body)).await.unwrap();
    assert!(error.is_err());
    drop(reservation);
    assert_eq!(gateway.runner("r1").unwrap().key().generation.0, 2);
}
