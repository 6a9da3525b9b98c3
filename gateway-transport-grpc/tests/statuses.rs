//! What a worker's status becomes: an HTTP status before the first text, a broken answer after it.

mod support;

use gateway_core::RunnerLink;
use gateway_transport_grpc::{Dialect, GrpcLink};
use support::{DIALECTS, Worker, build, events, json, link, next, post, sent, streamed, text, whole};
use tonic::{Code, Status};

#[tokio::test]
async fn each_status_has_its_counterpart() {
    for (code, http, kind) in [
        (Code::InvalidArgument, 400, "invalid_request_error"),
        (Code::FailedPrecondition, 400, "invalid_request_error"),
        (Code::OutOfRange, 400, "invalid_request_error"),
        (Code::Unauthenticated, 401, "authentication_error"),
        (Code::PermissionDenied, 403, "permission_error"),
        (Code::NotFound, 404, "not_found_error"),
        (Code::AlreadyExists, 409, "invalid_request_error"),
        (Code::Aborted, 409, "invalid_request_error"),
        (Code::ResourceExhausted, 429, "rate_limit_error"),
        (Code::Unknown, 500, "server_error"),
        (Code::Internal, 500, "server_error"),
        (Code::DataLoss, 500, "server_error"),
        (Code::Unimplemented, 501, "server_error"),
        (Code::Unavailable, 503, "server_error"),
        (Code::Cancelled, 503, "server_error"),
        (Code::DeadlineExceeded, 504, "server_error"),
    ] {
        for dialect in DIALECTS {
            let served = Worker::fails(Status::new(code, "the worker's \"own\" wörds")).serve(dialect).await;
            let link = link(&served);
            for request in [streamed(), whole()] {
                let answer = sent(&link, request).await;
                assert_eq!(answer.status(), http, "{code:?}");
                assert_eq!(answer.headers()["content-type"], "application/json");
                let error = json(answer).await["error"].clone();
                assert_eq!(error["message"], "the worker's \"own\" wörds");
                assert_eq!(error["type"], kind);
                assert!(error["code"].is_string() && error["param"].is_null());
            }
        }
    }
}

#[tokio::test]
async fn overload_says_for_how_long() {
    let with_header = |seconds: &'static str| {
        let mut status = Status::resource_exhausted("full");
        status.metadata_mut().insert("retry-after", seconds.parse().unwrap());
        status
    };
    // google.rpc.Status with a RetryInfo of 2.5 s in it.
    let info = b"\x0a\x08\x08\x02\x10\x80\xca\xb5\xee\x01";
    let url = b"type.googleapis.com/google.rpc.RetryInfo";
    let mut any = vec![0x0a, url.len() as u8];
    any.extend_from_slice(url);
    any.extend_from_slice(&[0x12, info.len() as u8]);
    any.extend_from_slice(info);
    let mut details = vec![0x1a, any.len() as u8];
    details.extend_from_slice(&any);
    let with_details = Status::with_details(Code::Unavailable, "full", details.into());
    for (status, http, wanted) in [
        (with_header("7"), 429, Some("7")),
        (with_details, 503, Some("3")),
        (with_header("soon"), 429, None),
        (Status::unavailable("nobody knows"), 503, None),
    ] {
        let served = Worker::fails(status).serve(Dialect::Packaged).await;
        let answer = sent(&link(&served), streamed()).await;
        assert_eq!(answer.status(), http);
        let told = answer.headers().get("retry-after").map(|value| value.to_str().unwrap());
        assert_eq!(told, wanted);
    }
}

#[tokio::test]
async fn a_status_in_mid_answer_breaks_it_off() {
    for dialect in DIALECTS {
        let worker = Worker::new(|_, reply| async move {
            reply.text("half an ").await;
            reply.fail(Status::internal("out of memory")).await;
        });
        let served = worker.serve(dialect).await;
        let link = link(&served);
        let mut body = sent(&link, streamed()).await.into_body();
        let first = next(&mut body).await.unwrap().unwrap();
        assert!(first.windows(8).any(|at| at == b"half an "));
        let error = next(&mut body).await.expect("a fault is no end").unwrap_err();
        assert!(error.to_string().contains("out of memory"), "{error}");
        assert!(!error.is_not_sent());
        // Nothing has gone to the client of an answer that comes in one piece.
        let answer = sent(&link, whole()).await;
        assert_eq!(answer.status(), 500);
    }
}

#[tokio::test]
async fn an_end_without_a_last_message_is_a_fault() {
    let worker = Worker::new(|_, reply| async move {
        reply.text("half").await;
    });
    let served = worker.serve(Dialect::Packaged).await;
    let link = link(&served);
    let error = text(sent(&link, streamed()).await).await.unwrap_err();
    assert!(error.to_string().contains("last message"), "{error}");
    assert!(!link.send(whole()).await.unwrap_err().is_not_sent());
}

#[tokio::test]
async fn what_comes_after_the_last_message_changes_nothing_but_the_workers_own_no() {
    let says_more = Worker::new(|_, reply| async move {
        reply.text("all").await;
        reply.end().await;
        reply.text("too much").await;
    });
    let served = says_more.serve(Dialect::Packaged).await;
    let answer = text(sent(&link(&served), streamed()).await).await.unwrap();
    assert_eq!(support::content(&events(&answer)), "all");

    let says_no = Worker::new(|_, reply| async move {
        reply.text("all").await;
        reply.end().await;
        reply.fail(Status::internal("not so")).await;
    });
    let served = says_no.serve(Dialect::Packaged).await;
    assert!(text(sent(&link(&served), streamed()).await).await.is_err());

    let never_ends = Worker::new(|_, reply| async move {
        reply.text("all").await;
        reply.end().await;
        reply.cancelled().await;
    });
    let served = never_ends.serve(Dialect::Packaged).await;
    let answer = text(sent(&link(&served), streamed()).await).await.unwrap();
    assert_eq!(support::content(&events(&answer)), "all");
}

#[tokio::test]
async fn what_a_worker_counted_is_told_and_nothing_is_made_up() {
    let counts = |finish: Option<&'static str>| {
        Worker::new(move |_, reply| async move {
            reply.text("a").await;
            reply.end().await;
            let mut status = Status::new(Code::Ok, "");
            let trailers = status.metadata_mut();
            trailers.insert("prompt_tokens", "3".parse().unwrap());
            trailers.insert("completion-tokens", "4".parse().unwrap());
            if let Some(finish) = finish {
                trailers.insert("finish-reason", finish.parse().unwrap());
            }
            reply.fail(status).await;
        })
    };
    let with_usage = || {
        let body = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}]}"#;
        support::chat(body)
    };
    let served = counts(Some("length")).serve(Dialect::Plain).await;
    let link = link(&served);
    let answer = json(sent(&link, whole()).await).await;
    assert_eq!(
        answer["usage"],
        serde_json::json!({"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7})
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let events = events(&text(sent(&link, with_usage()).await).await.unwrap());
    let (last, others) = events.split_last().unwrap();
    assert_eq!(last["usage"]["total_tokens"], 7);
    assert_eq!(last["choices"], serde_json::json!([]));
    assert!(others.iter().all(|event| event["usage"].is_null() && event.get("usage").is_some()));
    assert_eq!(others.last().unwrap()["choices"][0]["finish_reason"], "length");

    let served = Worker::says(["a"]).serve(Dialect::Plain).await;
    let events = support::events(&text(sent(&support::link(&served), with_usage()).await).await.unwrap());
    assert!(events.iter().all(|event| event["usage"].is_null()), "nobody has counted");
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn what_cannot_be_carried_never_reaches_the_worker() {
    let worker = Worker::says(["hi"]);
    let served = worker.serve(Dialect::Packaged).await;
    let link = build(GrpcLink::builder(served.address()).message_limit(2000));
    let tools = r#"{"model":"m","tools":[{"type":"function"}],"messages":[{"role":"user","content":"hi"}]}"#;
    let answer = sent(&link, support::chat(tools)).await;
    assert_eq!(answer.status(), 400);
    let error = json(answer).await["error"].clone();
    assert_eq!(
        (error["param"].as_str(), error["code"].as_str()),
        (Some("tools"), Some("unsupported_parameter"))
    );
    let answer = sent(&link, post("/v1/embeddings", r#"{"model":"m","input":"x"}"#)).await;
    assert_eq!(answer.status(), 501);
    assert!(json(answer).await["error"]["message"].as_str().unwrap().contains("/v1/embeddings"));
    let long = format!(r#"{{"model":"m","prompt":"{}"}}"#, "x".repeat(2000));
    assert_eq!(sent(&link, post("/v1/completions", long)).await.status(), 413);
    assert!(support::lock(&worker.seen).is_empty());
}
