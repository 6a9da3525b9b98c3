//! Chunks pass as they come; a reader that stalls stops its own worker and nobody else; nothing is unbounded.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gateway_core::{Command, RequestBody, RunnerLink};
use gateway_transport_grpc::{Dialect, GrpcLink};
use support::{
    DIALECTS, Worker, build, content, events, json, link, next, payload, post, sent, streamed, text, whole,
};
use tokio::sync::{Mutex, mpsc};
use tonic::Status;

fn completion(prompt: &str) -> gateway_core::LinkRequest {
    post("/v1/completions", format!(r#"{{"model":"m","stream":true,"prompt":"{prompt}"}}"#))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stall_stall_nobody_else() {
    for dialect in DIALECTS {
        let taken = Arc::new(AtomicUsize::new(0));
        let worker = {
            let taken = taken.clone();
            Worker::new(move |asked, reply| {
                let taken = taken.clone();
                async move {
                    if asked.prompt != "endless" {
                        reply.text("quick").await;
                        return reply.end().await;
                    }
                    while reply.text("x".repeat(1000)).await {
                        taken.fetch_add(1000, Ordering::SeqCst);
                    }
                }
            })
        };
        let served = worker.serve(dialect).await;
        let link = link(&served);
        let mut stalled = Vec::new();
        for _ in 0..200 {
            stalled.push(sent(&link, completion("endless")).await);
        }
        // Others are the clock: when many have come and gone and no more was taken, no more will be.
        let mut before = usize::MAX;
        while before != taken.load(Ordering::SeqCst) {
            before = taken.load(Ordering::SeqCst);
            for _ in 0..50 {
                assert!(text(sent(&link, completion("quick")).await).await.unwrap().contains("quick"));
            }
        }
        // A window of 64 KiB, what the worker's own server holds (400 KiB), and what is in our hands.
        assert!(before / stalled.len() < 600 * 1024, "{before} bytes for {} readers", stalled.len());
        drop(stalled);
    }
}

#[tokio::test]
async fn chunks_pass_as_they_come() {
    let (feed, fed) = mpsc::channel::<String>(1);
    let fed = Arc::new(Mutex::new(fed));
    let worker = Worker::new(move |_, reply| {
        let fed = fed.clone();
        async move {
            while let Some(chunk) = fed.lock().await.recv().await {
                reply.text(chunk).await;
            }
            reply.end().await;
        }
    });
    let served = worker.serve(Dialect::Packaged).await;
    feed.send("0".to_owned()).await.unwrap();
    let link = link(&served);
    let mut body = sent(&link, streamed()).await.into_body();
    for number in 0..50 {
        // Nothing more is coming until this one is here.
        let chunk = next(&mut body).await.unwrap().unwrap();
        let chunk = String::from_utf8(chunk.to_vec()).unwrap();
        assert!(chunk.contains(&format!(r#""content":"{number}""#)), "{chunk}");
        feed.send((number + 1).to_string()).await.unwrap();
    }
    drop(feed);
}

#[tokio::test]
async fn loading_progress_is_no_text() {
    for dialect in DIALECTS {
        let served =
            Worker::says(["[模型加载] 10%", "[模型加载]", "It ", "[模型加载] is a tag"]).serve(dialect).await;
        let link = link(&served);
        let events = events(&text(sent(&link, streamed()).await).await.unwrap());
        // Once the answer has begun it is the model's own words.
        assert_eq!(content(&events), "It [模型加载] is a tag");
        let answer = json(sent(&link, whole()).await).await;
        assert_eq!(answer["choices"][0]["message"]["content"], "It [模型加载] is a tag");
    }
    let served = Worker::says(["[模型加载] 10%"]).serve(Dialect::Packaged).await;
    let answer = json(sent(&link(&served), whole()).await).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "");
}

#[tokio::test]
async fn one_call_more_than_there_may_be_is_not_sent() {
    let worker = Worker::new(|_, reply| async move {
        reply.text("x").await;
        reply.cancelled().await;
    });
    let served = worker.serve(Dialect::Packaged).await;
    let link = build(GrpcLink::builder(served.address()).max_streams(2));
    let first = sent(&link, streamed()).await;
    let _second = sent(&link, streamed()).await;
    assert!(link.send(streamed()).await.unwrap_err().is_not_sent());
    link.health().await.expect("questions have room of their own");
    drop(first);
    let _third = sent(&link, streamed()).await;
}

#[tokio::test]
async fn a_message_may_be_so_long_and_no_longer() {
    let served = Worker::new(|asked, reply| async move {
        reply.text("x".repeat(asked.prompt.len())).await;
        reply.end().await;
    });
    let served = served.serve(Dialect::Plain).await;
    let link = build(GrpcLink::builder(served.address()).message_limit(200_000));
    let answer = text(sent(&link, completion(&"y".repeat(150_000))).await).await.unwrap();
    assert!(answer.contains(&"x".repeat(150_000)));
    let worker = Worker::new(|_, reply| async move {
        reply.text("x".repeat(300_000)).await;
        reply.end().await;
    });
    let served = worker.serve(Dialect::Plain).await;
    let narrow = build(GrpcLink::builder(served.address()).message_limit(200_000));
    let error = narrow.send(streamed()).await.unwrap_err();
    assert!(error.to_string().contains("limit") && !error.is_not_sent(), "{error}");
    // The limit is a message's; an answer that is gathered has the same.
    let drips = Worker::new(|_, reply| async move {
        for _ in 0..5 {
            reply.text("x".repeat(50_000)).await;
        }
        reply.end().await;
    });
    let served = drips.serve(Dialect::Plain).await;
    let narrow = build(GrpcLink::builder(served.address()).message_limit(200_000));
    assert_eq!(content(&events(&text(sent(&narrow, streamed()).await).await.unwrap())).len(), 250_000);
    assert!(narrow.send(whole()).await.is_err());
}

#[tokio::test]
async fn deadline_and_token_travel_with_the_call() {
    let worker = Worker::says(["hi"]).token("s3cret");
    let served = worker.serve(Dialect::Packaged).await;
    let mut request = streamed();
    request.headers_mut().insert("x-request-timeout-ms", "1500".parse().unwrap());
    request.headers_mut().insert("authorization", "Bearer theirs".parse().unwrap());
    let let_in = build(GrpcLink::builder(served.address()).token("s3cret"));
    assert_eq!(sent(&let_in, request).await.status(), 200);
    let call = worker.last().call;
    assert_eq!(call.get("grpc-timeout").unwrap(), "1500m");
    assert_eq!(call.get("te").map(|te| te.as_bytes()), Some(&b"trailers"[..]));
    assert!(!format!("{let_in:?} {:?}", let_in.describe()).contains("s3cret"));
    let shut_out = build(GrpcLink::builder(served.address()).token("wrong"));
    assert_eq!(sent(&shut_out, streamed()).await.status(), 401);
}

/// A worker that keeps to the client's own time does no wrong, however it says so.
#[tokio::test]
async fn a_worker_that_keeps_to_the_deadline_is_not_to_blame() {
    for begins in [false, true] {
        let late = Worker::new(move |_, reply| async move {
            if begins {
                reply.text("so far").await;
            }
            tokio::time::sleep(Duration::from_millis(60)).await;
            reply.fail(Status::deadline_exceeded("too late")).await;
        });
        let served = late.serve(Dialect::Packaged).await;
        for (millis, is_due) in [("50", true), ("60000", false)] {
            let mut request = streamed();
            request.headers_mut().insert("x-request-timeout-ms", millis.parse().unwrap());
            match link(&served).send(request).await {
                Ok(answer) if !begins => assert_eq!((answer.status().as_u16(), is_due), (504, false)),
                Ok(answer) => {
                    let error = text(answer).await.expect_err("it breaks off");
                    assert_eq!(error.is_deadline(), is_due, "{error}");
                }
                Err(error) => assert!(error.is_deadline() && is_due && !begins, "{error}"),
            }
        }
    }
}

#[tokio::test]
async fn commands_go_as_far_as_the_worker_knows_them() {
    let model = |name: &str| gateway_core::ModelId::new(name).unwrap();
    for dialect in DIALECTS {
        let worker = Worker::says(["hi"]).control(|command, asked| {
            let reply = |pairs: &[(&str, &str)]| {
                Ok((
                    format!("{command}_response"),
                    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
                ))
            };
            match (command, asked.get("model_id").map(String::as_str)) {
                ("ping", _) => reply(&[("status", "ok"), ("message", "pong")]),
                ("list_models", _) => reply(&[("status", "ok"), ("models", "a,b")]),
                ("unload_model", Some("a")) => reply(&[("status", "ok")]),
                ("unload_model", _) => reply(&[("status", "error"), ("message", "it is not here")]),
                _ => reply(&[("status", "error"), ("message", "Unknown command: load_model")]),
            }
        });
        worker.set_health(true, payload([("requests_inflight", "2")]));
        let served = worker.serve(dialect).await;
        let link = link(&served);
        link.ping().await.unwrap();
        assert_eq!(link.models().await.unwrap(), [model("a"), model("b")]);
        assert_eq!(link.health().await.unwrap().requests_in_flight(), Some(2));
        let status = link.command(Command::Status).await.unwrap().status.unwrap();
        assert_eq!((status.models.len(), status.load.unwrap().active), (2, 2));
        let done = link.command(Command::UnloadModel(model("a"))).await.unwrap();
        assert!(done.result.is_ok() && done.status.is_some());
        let refused = link.command(Command::UnloadModel(model("z"))).await.unwrap();
        assert_eq!(refused.result, Err("it is not here".to_owned()));
        assert!(link.command(Command::LoadModel(model("a"))).await.unwrap_err().is_unsupported());
    }
}

/// The contract has one message for a request: it goes when all of it is here.
#[tokio::test]
async fn a_streamed_body_is_gathered_and_a_broken_one_is_the_clients() {
    let pieces = |pieces: Vec<Result<&'static str, gateway_core::BoxError>>| {
        let frames =
            pieces.into_iter().map(|piece| piece.map(|text| http_body::Frame::data(Bytes::from(text))));
        let body = RequestBody::stream(http_body_util::StreamBody::new(tokio_stream::iter(frames)));
        http::Request::post("/v1/completions").body(body).unwrap()
    };
    let worker = Worker::says(["hi"]);
    let served = worker.serve(Dialect::Packaged).await;
    let link = link(&served);
    let error = link.send(pieces(vec![Ok(r#"{"model":"m","#), Err("gone".into())])).await.unwrap_err();
    assert!(error.is_request_body(), "{error}");
    assert!(support::lock(&worker.seen).is_empty());
    let answer =
        json(sent(&link, pieces(vec![Ok(r#"{"model":"#), Ok(r#""m","prompt":"#), Ok(r#""p"}"#)])).await)
            .await;
    assert_eq!((answer["choices"][0]["text"].as_str(), worker.last().prompt.as_str()), (Some("hi"), "p"));
}
