//! A worker that sends whatever it likes: no panic, no unbounded memory, an error in time, and the next call works.
//!
//! 512 cases each of bytes in place of HTTP/2 frames, and of bytes in place of messages and trailers.

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gateway_core::RunnerLink;
use gateway_transport_grpc::{Dialect, GrpcLink};
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use prost::Message;
use support::{PATIENCE, build, content, events, link, lock, streamed, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

const CASES: u32 = 512;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn runner() -> TestRunner {
    TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() })
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    (listener, address)
}

/// Whatever becomes of it, something does, and soon.
async fn comes_to_an_end(link: &GrpcLink) {
    let exchange = async {
        if let Ok(answer) = link.send(streamed()).await {
            let _ = text(answer).await;
        }
    };
    timeout(PATIENCE, exchange).await.expect("an end");
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut all = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    all.extend_from_slice(&[kind, flags]);
    all.extend_from_slice(&stream.to_be_bytes());
    all.extend_from_slice(payload);
    all
}

#[test]
fn bytes_in_place_of_http2() {
    let runtime = runtime();
    let said: Arc<Mutex<Vec<u8>>> = Arc::default();
    let (listener, address) = runtime.block_on(listen());
    let heard = Arc::new(AtomicU32::new(0));
    let (says, hears) = (said.clone(), heard.clone());
    runtime.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            hears.fetch_add(1, Ordering::Relaxed);
            let bytes = lock(&says).clone();
            let _ = stream.write_all(&bytes).await;
            // What was sent is read, so that the end is an end and no reset that overtakes the bytes.
            let _ = stream.shutdown().await;
            let _ = timeout(Duration::from_millis(50), stream.read_to_end(&mut Vec::new())).await;
        }
    });
    let link = build(GrpcLink::builder(&address).dialect(Dialect::Packaged));
    let other = support::Worker::says(["fine"]);
    let served = runtime.block_on(other.serve(Dialect::Packaged));
    let other = support::link(&served);
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    let frames = (any::<bool>(), prop::collection::vec((0..11u8, any::<u8>(), 0..4u32, bytes.clone()), 0..8));
    let strategy = prop_oneof![
        bytes,
        frames.prop_map(|(settings, frames)| {
            let mut all = if settings { frame(4, 0, 0, &[]) } else { Vec::new() };
            for (kind, flags, stream, payload) in frames {
                all.extend_from_slice(&frame(kind, flags, stream, &payload));
            }
            all
        }),
    ];
    let done = runner().run(&strategy, |bytes| {
        *lock(&said) = bytes;
        runtime.block_on(comes_to_an_end(&link));
        Ok(())
    });
    done.unwrap();
    assert!(heard.load(Ordering::Relaxed) >= CASES, "{heard:?} connections");
    let answer = runtime.block_on(async { text(other.send(streamed()).await.unwrap()).await.unwrap() });
    assert_eq!(content(&events(&answer)), "fine");
}

/// What a worker that does speak HTTP/2 sends on one stream.
#[derive(Debug, Clone)]
struct Nonsense {
    head: Option<Vec<u8>>,
    data: Vec<Vec<u8>>,
    end: End,
}

#[derive(Debug, Clone)]
enum End {
    Trailers { status: Vec<u8>, message: Vec<u8>, details: Vec<u8> },
    NoTrailers,
    Reset,
}

fn nonsense() -> impl Strategy<Value = Nonsense> {
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    // Some that begins as a message does, so that more than the first five bytes are looked at.
    let message = (bytes(40), any::<bool>()).prop_map(|(payload, whole)| {
        let mut all = vec![0, 0, 0, 0, payload.len() as u8 + u8::from(!whole)];
        all.extend_from_slice(&payload);
        all
    });
    let chunk = "\\PC{0,10}".prop_map(|chunk| {
        let said =
            gateway_transport_grpc::proto::cy_llm::StreamPredictResponse { chunk, ..Default::default() };
        let payload = said.encode_to_vec();
        let mut all = vec![0, 0, 0, 0, payload.len() as u8];
        all.extend_from_slice(&payload);
        all
    });
    let header = || prop::collection::vec(prop_oneof![0x20..0x7fu8, 0x80..=0xffu8], 0..30);
    let end = prop_oneof![
        (prop_oneof!["[0-9]{1,4}".prop_map(String::into_bytes), header()], header(), header())
            .prop_map(|(status, message, details)| End::Trailers { status, message, details }),
        Just(End::NoTrailers),
        Just(End::Reset),
    ];
    let data = prop::collection::vec(prop_oneof![bytes(60), message, chunk], 0..6);
    (prop::option::weighted(0.1, header()), data, end).prop_map(|(head, data, end)| Nonsense {
        head,
        data,
        end,
    })
}

/// Answers with the nonsense that lies there, or else with a good answer.
async fn speak(stream: TcpStream, what: Arc<Mutex<Option<Nonsense>>>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let nonsense = lock(&what).take();
        let mut head = http::Response::new(());
        let grpc = HeaderValue::from_static("application/grpc");
        let (kind, data, end) = match nonsense {
            Some(Nonsense { head, data, end }) => {
                (head.map_or(grpc, |kind| HeaderValue::from_bytes(&kind).unwrap()), data, end)
            }
            None => {
                let last = vec![0, 0, 0, 0, 8, 0x12, 4, b'f', b'i', b'n', b'e', 0x18, 1];
                let status = b"0".to_vec();
                (grpc, vec![last], End::Trailers { status, message: Vec::new(), details: Vec::new() })
            }
        };
        head.headers_mut().insert("content-type", kind);
        let Ok(mut stream) = respond.send_response(head, false) else { continue };
        for data in data {
            let _ = stream.send_data(Bytes::from(data), false);
        }
        match end {
            End::NoTrailers => drop(stream.send_data(Bytes::new(), true)),
            End::Reset => stream.send_reset(h2::Reason::INTERNAL_ERROR),
            End::Trailers { status, message, details } => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_bytes(&status).unwrap());
                trailers.insert("grpc-message", HeaderValue::from_bytes(&message).unwrap());
                trailers.insert("grpc-status-details-bin", HeaderValue::from_bytes(&details).unwrap());
                let _ = stream.send_trailers(trailers);
            }
        }
    }
}

#[test]
fn bytes_in_place_of_messages_and_trailers() {
    let runtime = runtime();
    let what: Arc<Mutex<Option<Nonsense>>> = Arc::default();
    let (listener, address) = runtime.block_on(listen());
    let says = what.clone();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(speak(stream, says.clone()));
        }
    });
    let link = build(GrpcLink::builder(&address).dialect(Dialect::Packaged).message_limit(4096));
    let done = runner().run(&nonsense(), |nonsense| {
        *lock(&what) = Some(nonsense);
        runtime.block_on(async {
            comes_to_an_end(&link).await;
            // The stream has gone, the connection has not.
            let answer = text(link.send(streamed()).await.expect("the next call")).await.expect("an answer");
            assert_eq!(content(&events(&answer)), "fine");
        });
        Ok(())
    });
    done.unwrap();
}

/// Nobody is held up by it, and whoever waits for text goes on waiting until the dispatcher has enough of it.
#[test]
fn messages_without_end_and_without_text() {
    runtime().block_on(async {
        let worker = support::Worker::new(|_, reply| async move { while reply.text("").await {} });
        let served = worker.serve(Dialect::Packaged).await;
        let link = link(&served);
        let waiting = timeout(Duration::from_millis(300), link.send(streamed()));
        assert!(waiting.await.is_err(), "an answer without a byte");
        timeout(PATIENCE, link.health()).await.expect("others are served").unwrap();
    });
}
