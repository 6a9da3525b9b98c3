//! Clients that go away, or do not read, over a real socket.

mod server_support;

use std::time::Duration;

use gateway_testkit::{Fault, MockEngine, Script, Seen, assert_all_zero};
use gateway_transport_grpc::proto::cy_llm::ai_inference_client::AiInferenceClient;
use server_support::*;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;

/// What DESIGN promises for every transport.
const BOUND: Duration = Duration::from_millis(100);

async fn cancelled(engine: MockEngine, first: Option<&str>) {
    let (gateway, server) = serve(&engine);
    let socket = Socket::serve(server).await;
    let mut client = AiInferenceClient::new(socket.connect().await);
    let (send, requests) = mpsc::channel(4);
    for prompt in ["1", "2", "3"] {
        send.send(asked(prompt)).await.unwrap();
    }
    let call = client.stream_predict(as_client(ReceiverStream::new(requests)));
    let mut answers = call.await.unwrap().into_inner();
    engine.until(|counts| counts.started == 1).await;
    if let Some(first) = first {
        assert_eq!(answers.message().await.unwrap().unwrap().chunk, first);
    }
    let begun = Instant::now();
    // Hyper's client resets a stream when both of its halves have gone.
    drop((answers, send));
    engine.until(|counts| counts.aborted == 1).await;
    let took = begun.elapsed();
    assert!(took < BOUND, "{took:?}");
    assert_all_zero(&gateway.dispatcher(), [&engine]).await;
    assert_eq!(engine.counts().started, 1, "those that waited are not begun");
}

#[tokio::test]
async fn a_cancel_before_the_first_byte_reaches_the_runner() {
    cancelled(MockEngine::new(|_: &Seen| sse(&["a"]).fault(Fault::NoAnswer)), None).await;
}

#[tokio::test]
async fn a_cancel_in_the_middle_reaches_the_runner() {
    cancelled(MockEngine::new(|_: &Seen| sse(&["a", "b"]).fault(Fault::StallAfter(1))), Some("a")).await;
}

#[tokio::test]
async fn a_connection_that_closes_cancels() {
    let engine = MockEngine::new(|_: &Seen| sse(&["a", "b"]).fault(Fault::StallAfter(1)));
    let (gateway, server) = serve(&engine);
    let socket = Socket::serve(server).await;
    let connection = socket.connect().await;
    let mut client = AiInferenceClient::new(connection);
    let requests = tokio_stream::iter([asked("1")]);
    let mut answers = client.stream_predict(as_client(requests)).await.unwrap().into_inner();
    answers.message().await.unwrap();
    let begun = Instant::now();
    drop((client, answers));
    engine.until(|counts| counts.aborted == 1).await;
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    assert_all_zero(&gateway.dispatcher(), [&engine]).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_runner() {
    let engine = MockEngine::new(|_: &Seen| {
        let event = format!("data: {{\"choices\":[{{\"text\":\"{}\"}}]}}\n\n", "x".repeat(8 << 10));
        let events = std::iter::repeat_n(bytes::Bytes::from(event), 8 << 10);
        Script::chunks(events).header(http::header::CONTENT_TYPE, "text/event-stream")
    });
    let (_gateway, server) = serve(&engine);
    let socket = Socket::serve(server).await;
    let mut stalled = AiInferenceClient::new(socket.connect().await);
    let requests = tokio_stream::iter([asked("1")]);
    let answers = stalled.stream_predict(as_client(requests)).await.unwrap().into_inner();
    // Until nothing has moved for a while: that is what standing still means.
    let mut sent = 0;
    while let Ok(counts) = timeout(BOUND * 3, engine.until(|counts| counts.sent_bytes > sent)).await {
        sent = counts.sent_bytes;
    }
    assert!(sent < 16 << 20, "{sent} of 64 MiB were taken for a client that reads nothing");
    drop(answers);
    engine.until(|counts| counts.aborted == 1).await;
}
