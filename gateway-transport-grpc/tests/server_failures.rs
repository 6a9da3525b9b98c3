//! Failures: each has its status, and the gateway's own words.

mod server_support;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use gateway_core::QueuePolicy;
use gateway_testkit::{Fault, MockEngine, Script, Seen};
use gateway_transport_grpc::GrpcServer;
use gateway_transport_grpc::proto::cy_llm::ai_inference_client::AiInferenceClient;
use gateway_transport_grpc::proto::cy_llm::{GenerationParameters, StreamPredictRequest};
use http_body_util::{BodyExt, StreamBody};
use server_support::*;
use tonic::Code;
use tonic_types::StatusExt;
use tower_service::Service;

#[tokio::test]
async fn a_wrong_token_is_unauthenticated_and_reaches_no_runner() {
    let engine = words(&["a"]);
    let (_gateway, server) = serve(&engine);
    let mut client = AiInferenceClient::new(server);
    for request in [
        tonic::Request::new(tokio_stream::iter([asked("hi")])),
        with_token(tokio_stream::iter([asked("hi")]), "wrong"),
    ] {
        let answers = client.stream_predict(request).await.unwrap().into_inner();
        let status = all(answers).await.1.expect("a failure");
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert!(!status.message().is_empty());
    }
    assert_eq!(engine.counts().started, 0);
}

#[tokio::test]
async fn an_api_key_lets_in_as_well() {
    let (_gateway, server) = serve(&words(&["a"]));
    let mut request = tonic::Request::new(tokio_stream::iter([asked("hi")]));
    request.metadata_mut().insert("x-api-key", CLIENT.parse().unwrap());
    let answers = AiInferenceClient::new(server).stream_predict(request).await.unwrap().into_inner();
    assert_eq!(text(&all(answers).await.0), "a");
}

#[tokio::test]
async fn an_unknown_model_is_not_found() {
    let (_gateway, server) = serve(&words(&["a"]));
    let status = failure(&server, StreamPredictRequest { model_id: "other".into(), ..asked("hi") }).await;
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("`other`"), "{status:?}");
    assert!(status.metadata().contains_key("x-request-id"));
}

#[tokio::test]
async fn a_request_that_is_wrong_is_an_invalid_argument() {
    let (_gateway, server) = serve(&words(&["a"]));
    let unnamed = failure(&server, StreamPredictRequest { model_id: String::new(), ..asked("hi") }).await;
    assert_eq!(unnamed.code(), Code::InvalidArgument, "{unnamed:?}");
    let generation = Some(GenerationParameters { temperature: f64::NAN, ..GenerationParameters::default() });
    let nan = failure(&server, StreamPredictRequest { generation, ..asked("hi") }).await;
    assert_eq!(nan.code(), Code::InvalidArgument);
    assert!(nan.message().contains("generation.temperature"), "{nan:?}");
    let hint = failure(&server, StreamPredictRequest { worker_hint: "a\nb".into(), ..asked("hi") }).await;
    assert_eq!(hint.code(), Code::InvalidArgument);
    let mut late = as_client(tokio_stream::iter([asked("hi")]));
    late.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    let error = AiInferenceClient::new(server).stream_predict(late).await.expect_err("not a time");
    assert_eq!(error.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn overload_says_when_to_come_back() {
    let engine = MockEngine::new(|_: &Seen| Script::sse([""; 0]).fault(Fault::NoAnswer));
    let gateway = builder().queue(QueuePolicy { max_waiting: 0, ..QueuePolicy::default() }).build().unwrap();
    join(&gateway, "r1", 1, &engine);
    let server = GrpcServer::builder(gateway).build().unwrap();
    let at_work = predict(&server, vec![asked("1")]).await.unwrap();
    let at_work = tokio::spawn(all(at_work));
    engine.until(|counts| counts.started == 1).await;
    let status = failure(&server, asked("2")).await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let wait =
        status.get_error_details().retry_info().and_then(|info| info.retry_delay).expect("retry information");
    let told: u64 = status.metadata().get("retry-after").unwrap().to_str().unwrap().parse().unwrap();
    assert_eq!(wait, Duration::from_secs(told));
    assert!(told >= 1);
    at_work.abort();
}

#[tokio::test]
async fn a_runner_that_dies_in_the_middle_is_told_after_what_it_said() {
    let engine = MockEngine::new(|_: &Seen| sse(&["a", "b", "c"]).fault(Fault::CutAfter(2)));
    let (_gateway, server) = serve(&engine);
    let (messages, status) = all(predict(&server, vec![asked("1"), asked("2")]).await.unwrap()).await;
    assert_eq!(text(&messages), "ab");
    assert!(messages.iter().all(|message| !message.end_of_stream), "a part is not taken for the whole");
    assert_eq!(status.expect("a failure").code(), Code::Unavailable);
    assert_eq!(engine.counts().started, 1, "what follows a failure is not served");
}

#[tokio::test]
async fn an_answer_that_does_not_say_that_it_is_whole_is_a_failure() {
    let event = "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":null}]}\n\n";
    let engine = MockEngine::new(move |_: &Seen| {
        Script::chunks([event]).header(http::header::CONTENT_TYPE, "text/event-stream")
    });
    let (_gateway, server) = serve(&engine);
    let (messages, status) = all(predict(&server, vec![asked("1")]).await.unwrap()).await;
    assert_eq!(text(&messages), "a");
    assert_eq!(status.expect("a failure").code(), Code::Unavailable);
}

#[tokio::test]
async fn what_is_no_event_stream_is_an_error() {
    let engine = MockEngine::new(|_: &Seen| Script::text(r#"{"choices":[{"text":"a"}]}"#));
    let (_gateway, server) = serve(&engine);
    assert_eq!(failure(&server, asked("1")).await.code(), Code::Internal);
    let garbage = MockEngine::new(|_: &Seen| Script::sse(["{not JSON"]));
    let (_gateway, server) = serve(&garbage);
    assert_eq!(failure(&server, asked("1")).await.code(), Code::Internal);
}

#[tokio::test]
async fn a_runner_s_own_refusal_passes() {
    let engine = MockEngine::new(|_: &Seen| {
        Script::status(422, r#"{"error":{"message":"too long a prompt","type":"invalid_request_error"}}"#)
    });
    let (_gateway, server) = serve(&engine);
    let status = failure(&server, asked("1")).await;
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "too long a prompt"));
}

#[tokio::test]
async fn a_prompt_beyond_the_limits_is_an_invalid_argument() {
    let engine = words(&["a"]);
    let gateway = builder().max_body_bytes(10_000).build().unwrap();
    join(&gateway, "r1", 4, &engine);
    let server = GrpcServer::builder(gateway).max_message_bytes(20_000).build().unwrap();
    for (size, words) in [(15_000, "10000 bytes"), (30_000, "20000 bytes")] {
        let status = failure(&server, asked(&"x".repeat(size))).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(words), "{status:?}");
    }
    assert_eq!(engine.counts().started, 0);
    let (messages, _) = all(predict(&server, vec![asked(&"x".repeat(9_000))]).await.unwrap()).await;
    assert_eq!(text(&messages), "a");
}

/// A message of a stranger's, of which the pieces after the first 64 KiB are counted when they are read.
#[tokio::test]
async fn of_a_stranger_no_large_message_is_read() {
    const PIECE: usize = 16 << 10;
    let (_gateway, mut server) = serve(&words(&["a"]));
    let read = |token: &'static str, server: &mut GrpcServer| {
        let counted = Arc::new(AtomicUsize::new(0));
        let count = counted.clone();
        let frames = (0..64).map(move |number| {
            count.fetch_add(1, Relaxed);
            // All of it is one message of 1 MiB with a prompt and nothing else.
            let mut piece = vec![0; PIECE];
            if number == 0 {
                piece[..9].copy_from_slice(&[0, 0, 0x0f, 0xff, 0xfb, 0x12, 0xf7, 0xff, 0x3f]);
            }
            Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(piece)))
        });
        let request = http::Request::post("/cy.llm.AiInference/StreamPredict")
            .header("content-type", "application/grpc")
            .header("authorization", format!("Bearer {token}"))
            .body(StreamBody::new(tokio_stream::iter(frames)))
            .unwrap();
        let answering = server.call(request);
        async move {
            let (_, body) = answering.await.unwrap().into_parts();
            let trailers = body.collect().await.unwrap().trailers().cloned().expect("trailers");
            (trailers["grpc-status"].to_str().unwrap().to_owned(), counted.load(Relaxed))
        }
    };
    let (status, pieces) = read("wrong", &mut server).await;
    assert_eq!(status, "16", "unauthenticated");
    assert!(pieces <= 6, "{pieces} pieces of {PIECE} bytes were read");
    let (status, pieces) = read(CLIENT, &mut server).await;
    assert_eq!((status.as_str(), pieces), ("3", 64), "it is read whole, and names no model");
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_call_holds_for_all_of_it() {
    let engine = MockEngine::new(|_: &Seen| sse(&["a"]).fault(Fault::StallAfter(1)));
    let (_gateway, server) = serve(&engine);
    let mut request = as_client(tokio_stream::iter([asked("hi")]));
    request.metadata_mut().insert("grpc-timeout", "2500m".parse().unwrap());
    let begun = tokio::time::Instant::now();
    let answers = AiInferenceClient::new(server).stream_predict(request).await.unwrap().into_inner();
    let (messages, status) = all(answers).await;
    assert_eq!(text(&messages), "a");
    assert_eq!(status.expect("a failure").code(), Code::DeadlineExceeded);
    assert_eq!(begun.elapsed().as_millis() / 100, 25);
    assert_eq!(engine.last_seen().unwrap().head.headers["x-request-timeout-ms"], "2500");
    engine.until(|counts| counts.aborted == 1).await;
}
