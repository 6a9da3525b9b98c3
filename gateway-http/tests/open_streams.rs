//! What an open stream holds, from the answer that the gateway gives to the runner's socket; and that all of it is
//! given back.

mod common;

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;

use bytes::Bytes;
use common::*;
use gateway_core::{RunnerId, RunnerSpec, RunnerStatus};
use gateway_http::{Gateway, GatewayBody};
use gateway_transport_http::HttpLink;
use http::{HeaderValue, Uri};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// In bytes, of the heap and of the body itself, with a new connection to the runner: 28,400 when this was written. Nearly all of it is hyper's:
/// a buffer to write to and one to read into, 8 KiB each, and 12,000 for the channel by which it gets its requests.
const WITH_CONNECTION: i64 = 33_000;
/// The same on a connection that was there already: 1,570 with the body itself, which is all that is the gateway's own.
const ALONE: i64 = 1_700;
const STREAMS: usize = 200;
const ROUNDS: usize = 4;
const PROMPT: usize = 64 << 10;

const BEGINNING: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
                         9\r\ndata: a\n\n\r\n";
const END: &str = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

/// An engine in a thread of its own, whose memory is not counted. Each of its streams begins, and ends when `end` says so.
fn engine(end: watch::Receiver<usize>) -> SocketAddr {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(answer(stream, end.clone()));
            }
        });
    });
    address
}

async fn answer(mut stream: TcpStream, mut end: watch::Receiver<usize>) {
    let mut read = Vec::new();
    loop {
        while !read.ends_with(b"the end\"}") {
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        }
        read.clear();
        end.mark_unchanged();
        stream.write_all(BEGINNING.as_bytes()).await.unwrap();
        if end.changed().await.is_err() {
            return;
        }
        stream.write_all(END.as_bytes()).await.unwrap();
    }
}

async fn open(gateway: &Gateway, prompt: &Bytes) -> GatewayBody {
    let answer = send(gateway, chat(prompt.clone())).await;
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    assert_eq!(next_chunk(&mut body).await.unwrap(), "data: a\n\n");
    // Waits, so that whatever waiting needs is there.
    let waiting = body.frame();
    must_wait(std::pin::pin!(waiting)).await;
    body
}

#[test]
fn an_open_stream_holds_little_and_gives_it_back() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let (ending, end) = watch::channel(0);
    let address = engine(end);
    let gateway = builder().build().unwrap();
    let link = Arc::new(HttpLink::new(format!("http://{address}")).unwrap());
    let spec = RunnerSpec::new(RunnerId::new("r1").unwrap());
    gateway.dispatcher().registry().join(spec, RunnerStatus::serving([model("m")]), link);
    let prompt =
        Bytes::from(format!(r#"{{"model":"m","stream":true,"prompt":"{}the end"}}"#, "x".repeat(PROMPT)));
    let mut open_streams = Vec::with_capacity(STREAMS);
    let mut after = Vec::new();
    for round in 0..ROUNDS {
        let held = allocation_counter::measure(|| {
            runtime.block_on(async {
                for _ in 0..STREAMS {
                    open_streams.push(open(&gateway, &prompt).await);
                }
            });
        });
        let runner = &gateway.dispatcher().registry().fleet().runners()[0].clone();
        assert_eq!(runner.load().in_flight, STREAMS as u32);
        let given_back = allocation_counter::measure(|| {
            runtime.block_on(async {
                ending.send_replace(round);
                for mut body in open_streams.drain(..) {
                    assert_eq!(next_chunk(&mut body).await.unwrap(), "data: [DONE]\n\n");
                    assert!(next_chunk(&mut body).await.is_none());
                }
            });
        });
        assert_eq!(runner.load().in_flight, 0);
        let per_stream = held.bytes_current / STREAMS as i64 + size_of::<GatewayBody>() as i64;
        println!(
            "{per_stream} bytes per stream; {} left of all",
            held.bytes_current + given_back.bytes_current
        );
        let most = if round == 0 { WITH_CONNECTION } else { ALONE };
        assert!((most / 2..most).contains(&per_stream), "an open stream holds {per_stream} bytes");
        after.push(held.bytes_current + given_back.bytes_current);
    }
    // The first round makes the connections, which are idle afterwards, and what else lasts.
    let grown: i64 = after[1..].iter().sum();
    assert!(grown.abs() < 4_096, "after each round more is held: {after:?}");
}

#[tokio::test]
async fn an_open_stream_keeps_nothing_of_what_its_request_was_read_into() {
    let (path, id, body) = ("/v1/chat/completions", "req-7", r#"{"model":"m","stream":true}"#);
    let block = Bytes::from([path, id, body].concat());
    let (id, body) = (path.len()..path.len() + id.len(), path.len() + id.len()..);
    let mut request = chat(block.slice(body));
    *request.uri_mut() = Uri::from_maybe_shared(block.slice(..path.len())).unwrap();
    let id = HeaderValue::from_maybe_shared(block.slice(id)).unwrap();
    request.headers_mut().insert("x-request-id", id);
    let (mock, chunks) = Mock::stream("text/event-stream");
    let gateway = with_runner(&mock);
    chunks.send(Ok(Bytes::from_static(b"data: a\n\n"))).await.unwrap();
    let mut answer = send(&gateway, request).await;
    assert_eq!(next_chunk(answer.body_mut()).await.unwrap(), "data: a\n\n");
    assert_eq!(answer.headers()["x-request-id"], "req-7");
    mock.seen.lock().unwrap().clear();
    assert!(block.is_unique(), "a slice of the block is kept, and so the whole block is");
}
