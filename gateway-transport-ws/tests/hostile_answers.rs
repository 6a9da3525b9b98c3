//! Answers of runners that are dialled back, full of what looks like their own additions: what is taken out is exactly
//! that, and it costs no more than the answer is long.

mod hostile_support;
mod support;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gateway_core::{LinkBody, Runner};
use hostile_support::{each, in_pieces};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use proptest::sample::Index;
use support::{Client, Gateway, post, register, soon};
use tokio::net::TcpListener;

/// What the runner answers next: a type, and the chunks.
type Next = Arc<Mutex<(&'static str, Vec<Vec<u8>>)>>;

async fn runner(gateway: &Gateway, next: Next) -> (Arc<Runner>, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut message = register("r1");
    message["http_port"] = listener.local_addr().unwrap().port().into();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let next = next.clone();
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let next = next.clone();
                async move {
                    request.into_body().collect().await.unwrap();
                    let (content_type, chunks) = next.lock().unwrap().clone();
                    let mut answer = http::Response::builder().header("content-type", content_type);
                    if content_type == "application/json" {
                        answer = answer.header("content-length", chunks.concat().len());
                    }
                    let frames = chunks.into_iter().filter(|chunk| !chunk.is_empty());
                    let frames = frames.map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::from(chunk))));
                    let body = StreamBody::new(futures_util::stream::iter(frames));
                    Ok::<_, Infallible>(answer.body(body).unwrap())
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    let client = gateway.join(message).await;
    gateway.until(|fleet| fleet.runner("r1").is_some()).await;
    (gateway.runner("r1").unwrap(), client)
}

async fn whole(body: LinkBody) -> Vec<u8> {
    soon(body.collect()).await.unwrap().to_bytes().to_vec()
}

/// The same as it is written down: events end with an empty line, and the runner's own go, whole.
fn without_metrics(stream: &[u8]) -> Vec<u8> {
    let (mut kept, mut rest) = (Vec::new(), stream);
    // In an event: whether it goes. Between two: nothing.
    let mut event: Option<bool> = None;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
        let (line, later) = rest.split_at(end);
        rest = later;
        let is_whole = line.ends_with(b"\n");
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        let is_empty = bare.iter().all(|byte| *byte == b'\r');
        let own = [&b"event: simple_ai_metrics"[..], b"event:simple_ai_metrics"];
        let is_own = is_whole && own.iter().any(|own| bare == *own || bare.strip_suffix(b"\r") == Some(own));
        let goes = match event {
            None if is_own => true,
            None => false,
            Some(goes) => goes,
        };
        if !goes {
            kept.extend_from_slice(line);
        }
        event = match event {
            // A comment before an event is none of its lines, nor is an empty line.
            None if bare.starts_with(b":") || is_empty => None,
            None => Some(goes),
            Some(_) if is_empty => None,
            Some(goes) => Some(goes),
        };
    }
    kept
}

#[test]
fn events_are_taken_out_wherever_they_are_cut() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let next = Next::default();
    let gateway = runtime.block_on(Gateway::default());
    let (runner, _client) = runtime.block_on(runner(&gateway, next.clone()));
    let part = prop_oneof![
        3 => prop::sample::select(vec![
            "event: simple_ai_metrics\n", "event:simple_ai_metrics\r\n", "event: simple_ai_metrics", "event: simple_", ":",
            "data: x\n", "data: {\"a\":1}\n\n", "\n", "\r\n",  ": ping\n", "event: simple_ai_metrics_v2\n", "event:\n",
            "data: [DONE]\n\n",
        ]).prop_map(|part| part.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..12),
    ];
    // A carriage return for itself is a line's end to some and not to others; nobody writes that.
    let alone =
        |stream: &[u8]| (0..stream.len()).any(|at| stream[at] == b'\r' && stream.get(at + 1) != Some(&b'\n'));
    let stream = prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat());
    let stream = stream.prop_filter("a lone carriage return", move |stream| !alone(stream));
    each(384, (stream, prop::collection::vec(any::<Index>(), 0..8)), |(stream, cuts)| {
        *next.lock().unwrap() = ("text/event-stream", in_pieces(&stream, &cuts));
        let answer = runtime.block_on(async {
            let answer = soon(runner.link().send(post("{}"))).await.unwrap();
            whole(answer.into_body()).await
        });
        let expected = without_metrics(&stream);
        assert!(
            answer == expected,
            "{:?}\nwithout its metrics is {:?}\nand not {:?}",
            String::from_utf8_lossy(&stream),
            String::from_utf8_lossy(&expected),
            String::from_utf8_lossy(&answer)
        );
    });
}

/// Copying the rest for each of forty thousand would be twenty gigabytes.
#[test]
fn a_field_that_is_there_time_and_again_is_taken_out_in_one_go() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let field = r#""_simple_ai_metrics":1,"#;
    let json = format!(r#"{{{}"id":"x"}}"#, field.repeat((1 << 20) / field.len() - 4));
    let next: Next = Arc::new(Mutex::new(("application/json", vec![json.clone().into_bytes()])));
    let gateway = runtime.block_on(Gateway::default());
    let (runner, _client) = runtime.block_on(runner(&gateway, next));
    let mut answer = Vec::new();
    let used = allocation_counter::measure(|| {
        answer = runtime.block_on(async {
            let answer = soon(runner.link().send(post("{}"))).await.unwrap();
            whole(answer.into_body()).await
        });
    });
    assert_eq!(String::from_utf8(answer).unwrap(), r#"{"id":"x"}"#);
    // The runner's side allocates on the same thread.
    assert!(used.bytes_total < 64 * json.len() as u64, "{} bytes for {}", used.bytes_total, json.len());
}
