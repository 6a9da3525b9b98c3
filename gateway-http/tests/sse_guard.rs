//! Event streams pass as they come, and end in order when their runner does not.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use gateway_core::{Deadlines, LinkError};
use http_body_util::BodyExt;

const SSE: &str = "text/event-stream; charset=utf-8";
const STREAM: &str = "data: {\"a\":1}\n\ndata: {\"b\":\"x\"}\r\n\r\n: note\n\ndata: [DONE]\n\n";
const LAST_WORDS: &str = "data: {\"error\":{\"message\":\"The runner broke off its answer.\",\
     \"type\":\"upstream_error\",\"param\":null,\"code\":null}}\n\ndata: [DONE]\n\n";

/// What a client reads when the runner dies after these chunks.
async fn cut_after(chunks: &[&'static str]) -> String {
    let (link, send) = Mock::stream(SSE);
    let gateway = with_runner(&link);
    for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
        send.try_send(Ok(Bytes::from_static(chunk.as_bytes()))).unwrap();
    }
    send.try_send(Err(LinkError::lost("killed"))).unwrap();
    let answer = whole(&gateway, chat(r#"{"model":"m","stream":true}"#)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(gateway.dispatcher().in_flight(), 0);
    String::from_utf8(answer.body.to_vec()).unwrap()
}

#[tokio::test]
async fn a_cut_at_any_byte_is_told_once_and_in_order() {
    let done = STREAM.find("data: [DONE]").unwrap() + "data: [DONE]".len();
    let ends: Vec<usize> = ["}\n\n", "\r\n\r\n", "note\n\n", "[DONE]\n\n"]
        .iter()
        .map(|end| STREAM.find(end).unwrap() + end.len())
        .collect();
    for at in 1..=STREAM.len() {
        let text = cut_after(&[&STREAM[..at]]).await;
        let (passed, added) = text.split_at(at);
        assert_eq!(passed, &STREAM[..at]);
        let expected = match (at >= done, ends.contains(&at)) {
            (true, true) => String::new(),
            (true, false) => "\n\n".to_owned(),
            (false, true) => LAST_WORDS.to_owned(),
            (false, false) => format!("\n\n{LAST_WORDS}"),
        };
        assert_eq!(added, expected, "cut at {at}: {passed:?}");
    }
}

#[tokio::test]
async fn an_end_in_the_middle_of_an_event_is_a_cut_too() {
    // A runner whose answer ends with its connection: killed, it looks as if it had ended.
    let (link, send) = Mock::stream(SSE);
    let gateway = with_runner(&link);
    send.try_send(Ok(Bytes::from_static(b"data: {\"a\":1}\n\ndata: {\"b"))).unwrap();
    drop(send);
    let answer = whole(&gateway, chat(r#"{"model":"m","stream":true}"#)).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert_eq!(text, format!("data: {{\"a\":1}}\n\ndata: {{\"b\n\n{LAST_WORDS}"));
}

#[tokio::test]
async fn how_the_bytes_were_cut_into_chunks_does_not_matter() {
    for at in 1..STREAM.len() - 1 {
        for split in [at.saturating_sub(1), at / 2] {
            let one = cut_after(&[&STREAM[..at]]).await;
            assert_eq!(cut_after(&[&STREAM[..split], &STREAM[split..at]]).await, one, "{split} {at}");
        }
    }
}

#[tokio::test]
async fn a_whole_stream_passes_unchanged_chunk_by_chunk() {
    let (link, send) = Mock::stream(SSE);
    let gateway = with_runner(&link);
    send.try_send(Ok(Bytes::from_static(b"data: 1\n\n"))).unwrap();
    let response = super_send(&gateway).await;
    assert_eq!(response.headers()["cache-control"], "no-cache");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    assert_eq!(response.headers()["content-type"], SSE);
    let mut body = response.into_body();
    assert_eq!(next_chunk(&mut body).await.unwrap(), "data: 1\n\n");
    // Each chunk is there as soon as the runner has sent it, half an event included.
    for chunk in ["da", "ta: 2", "\n", "\ndata: [DONE]\n\n"] {
        send.try_send(Ok(Bytes::from_static(chunk.as_bytes()))).unwrap();
        assert_eq!(next_chunk(&mut body).await.unwrap(), chunk);
    }
    drop(send);
    assert!(next_chunk(&mut body).await.is_none());
    assert!(http_body::Body::is_end_stream(&body));
}

async fn super_send(gateway: &gateway_http::Gateway) -> http::Response<gateway_http::GatewayBody> {
    send(gateway, chat(r#"{"model":"m","stream":true}"#)).await
}

#[tokio::test(start_paused = true)]
async fn a_stall_and_the_deadline_have_words_of_their_own() {
    let second = Some(Duration::from_secs(1));
    for (deadlines, words) in [
        (Deadlines { idle: second, ..Deadlines::default() }, "stood still"),
        (Deadlines { total: second, ..Deadlines::default() }, "whole request is up"),
    ] {
        let (link, send) = Mock::stream(SSE);
        let gateway = builder().deadlines(deadlines).build().unwrap();
        join(&gateway, "r1", &["m"], &link);
        send.try_send(Ok(Bytes::from_static(b"data: 1\n\n"))).unwrap();
        let answer = whole(&gateway, chat(r#"{"model":"m"}"#)).await;
        let text = String::from_utf8_lossy(&answer.body);
        assert!(text.contains(words) && text.ends_with("data: [DONE]\n\n"), "{text}");
        assert!(send.is_closed(), "the runner is told");
    }
}

#[tokio::test]
async fn an_announced_length_does_not_stand_in_the_way_of_last_words() {
    let (link, send) = Mock::stream(SSE);
    let inner = link.clone();
    let sized = Mock::new(move |seen| {
        let inner = inner.clone();
        async move {
            let request = http::Request::new(gateway_core::RequestBody::from(seen.body));
            let mut response = gateway_core::RunnerLink::send(&*inner, request).await?;
            response.headers_mut().insert("content-length", 9.into());
            Ok(response)
        }
    });
    let gateway = with_runner(&sized);
    send.try_send(Ok(Bytes::from_static(b"data: 1\n\n"))).unwrap();
    send.try_send(Err(LinkError::lost("killed"))).unwrap();
    let answer = whole(&gateway, chat(r#"{"model":"m"}"#)).await;
    assert_eq!(answer.header("content-length"), None);
    assert!(answer.body.ends_with(b"data: [DONE]\n\n"));
}

#[tokio::test]
async fn an_answer_that_is_no_event_stream_is_cut() {
    for content_type in ["application/json", "text/event-streams", "text/plain"] {
        let (link, send) = Mock::stream(content_type);
        let gateway = with_runner(&link);
        send.try_send(Ok(Bytes::from_static(b"{\"half\":"))).unwrap();
        send.try_send(Err(LinkError::lost("killed"))).unwrap();
        let mut body = super_send(&gateway).await.into_body();
        assert_eq!(next_chunk(&mut body).await.unwrap(), "{\"half\":");
        assert!(body.frame().await.unwrap().is_err(), "{content_type}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_runner_s_work() {
    let (link, send) = Mock::stream(SSE);
    let gateway = with_runner(&link);
    send.try_send(Ok(Bytes::from_static(b"data: 1\n\n"))).unwrap();
    let body = super_send(&gateway).await.into_body();
    assert_eq!(gateway.dispatcher().in_flight(), 1);
    drop(body);
    assert!(send.is_closed());
    assert_eq!(gateway.dispatcher().in_flight(), 0);
}
