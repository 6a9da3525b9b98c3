//! A runner without the tunnel: reached at its own HTTP port, and its own additions taken out.

mod support;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use gateway_core::{LinkBody, Runner};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use support::{Gateway, next_chunk, post, register, soon};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// What the runner's HTTP server does with one request: the head of the answer, and its chunks.
struct Script {
    content_type: &'static str,
    content_length: Option<usize>,
    chunks: mpsc::Receiver<&'static str>,
}

impl Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.chunks.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk.into()))))
    }
}

/// A runner whose HTTP server follows the scripts, one per request; and the gateway that knows it.
async fn runner(gateway: &Gateway, scripts: Vec<Script>) -> (Arc<Runner>, support::Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut message = register("r1");
    message["http_port"] = listener.local_addr().unwrap().port().into();
    let scripts = Arc::new(std::sync::Mutex::new(scripts.into_iter()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let scripts = scripts.clone();
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let script = scripts.lock().unwrap().next().unwrap();
                async move {
                    assert_eq!(request.uri(), "/v1/chat/completions?a=b");
                    assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "{}");
                    let mut answer = http::Response::builder().header("content-type", script.content_type);
                    if let Some(len) = script.content_length {
                        answer = answer.header("content-length", len);
                    }
                    Ok::<_, Infallible>(answer.body(script).unwrap())
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

fn whole(content_type: &'static str, body: &'static str) -> Script {
    let (sender, chunks) = mpsc::channel(1);
    sender.try_send(body).unwrap();
    Script { content_type, content_length: Some(body.len()), chunks }
}

async fn text(body: LinkBody) -> String {
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn requests_reach_the_advertised_port_and_the_field_is_taken_out() {
    let gateway = Gateway::default().await;
    let json = r#"{"id":"x", "_simple_ai_metrics": {"tokens": 3}, "usage":{"total_tokens":1}}"#;
    let untouched = r#"{ "id" : 1.0 }"#;
    let scripts = vec![
        whole("application/json", json),
        whole("application/json; charset=utf-8", untouched),
        whole("text/plain", json),
    ];
    let (runner, _client) = runner(&gateway, scripts).await;
    let answer = soon(runner.link().send(post("{}"))).await.unwrap();
    let expected = r#"{"id":"x", "usage":{"total_tokens":1}}"#;
    assert_eq!(answer.headers()["content-length"], expected.len().to_string());
    assert_eq!(text(answer.into_body()).await, expected);
    let answer = soon(runner.link().send(post("{}"))).await.unwrap();
    assert_eq!(text(answer.into_body()).await, untouched);
    let answer = soon(runner.link().send(post("{}"))).await.unwrap();
    assert_eq!(text(answer.into_body()).await, json, "only JSON is looked into");
}

#[tokio::test]
async fn events_pass_one_by_one_and_the_metrics_are_taken_out() {
    let gateway = Gateway::default().await;
    let (sender, chunks) = mpsc::channel(1);
    let script = Script { content_type: "text/event-stream", content_length: None, chunks };
    let (runner, _client) = runner(&gateway, vec![script]).await;
    let mut body = soon(runner.link().send(post("{}"))).await.unwrap().into_body();
    // Each chunk is here before the next is sent.
    for chunk in ["data: one\n\n", "data: two\n\n"] {
        sender.send(chunk).await.unwrap();
        assert_eq!(soon(next_chunk(&mut body)).await.unwrap().unwrap(), chunk);
    }
    sender.send("event: simple_").await.unwrap();
    sender.send("ai_metrics\ndata: {\"x\":1}\n").await.unwrap();
    sender.send("\ndata: [DONE]\n\n").await.unwrap();
    drop(sender);
    assert_eq!(text(body).await, "data: [DONE]\n\n");
}

#[tokio::test]
async fn requests_go_on_when_the_control_connection_is_replaced() {
    let gateway = Gateway::default().await;
    let (sender, chunks) = mpsc::channel(1);
    let script = Script { content_type: "text/event-stream", content_length: None, chunks };
    let (runner, client) = runner(&gateway, vec![script]).await;
    let mut body = soon(runner.link().send(post("{}"))).await.unwrap().into_body();
    let _new = gateway.join(register("r1")).await;
    drop(client);
    soon(runner.left()).await;
    sender.send("data: one\n\n").await.unwrap();
    assert_eq!(soon(next_chunk(&mut body)).await.unwrap().unwrap(), "data: one\n\n");
}

#[tokio::test]
async fn a_cancel_reaches_the_runner() {
    let gateway = Gateway::default().await;
    let (sender, chunks) = mpsc::channel(1);
    let script = Script { content_type: "text/event-stream", content_length: None, chunks };
    let (runner, _client) = runner(&gateway, vec![script]).await;
    let body = soon(runner.link().send(post("{}"))).await.unwrap().into_body();
    drop(body);
    soon(sender.closed()).await;
}
