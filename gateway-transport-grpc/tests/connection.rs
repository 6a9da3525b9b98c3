//! The one connection: made when it is needed, again when it was lost, and never taken for something that it is not.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gateway_core::RunnerLink;
use gateway_transport_grpc::{Dialect, GrpcLink};
use h2::server::{Connection, SendResponse};
use http::HeaderValue;
use support::{DIALECTS, PATIENCE, Served, Worker, build, content, events, next, sent, streamed, text};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

type Peer = Connection<TcpStream, Bytes>;

/// A server of which the test decides every frame; its dialect is known.
async fn listen() -> (TcpListener, GrpcLink) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    (listener, build(GrpcLink::builder(&address).dialect(Dialect::Packaged)))
}

async fn accept(listener: &TcpListener) -> Peer {
    let (stream, _) = timeout(PATIENCE, listener.accept()).await.expect("a connection").expect("a socket");
    h2::server::handshake(stream).await.expect("HTTP/2")
}

async fn request(peer: &mut Peer) -> SendResponse<Bytes> {
    let accepted = timeout(PATIENCE, peer.accept()).await.expect("a request");
    accepted.expect("a stream").expect("a request").1
}

/// One message with text that is also the last.
fn answer(respond: &mut SendResponse<Bytes>) {
    let mut head = http::Response::new(());
    head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut stream = respond.send_response(head, false).expect("open");
    let message = [0, 0, 0, 0, 8, 0x12, 4, b'f', b'i', b'n', b'e', 0x18, 1];
    stream.send_data(Bytes::copy_from_slice(&message), false).expect("open");
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers).expect("open");
}

async fn is_fine(link: &GrpcLink) {
    assert_eq!(content(&events(&text(sent(link, streamed()).await).await.unwrap())), "fine");
}

#[tokio::test]
async fn it_comes_back_when_the_worker_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("worker.sock");
    let link = build(GrpcLink::builder(format!("unix:{}", path.display())));
    let error = link.send(streamed()).await.unwrap_err();
    assert!(error.is_not_sent(), "{error}");
    for dialect in DIALECTS {
        let served = Served::unix(Worker::says(["fine"]), dialect, &path).await;
        // It is asked again soon, whoever asks, and until then it is known at once that there is nobody.
        let back = async {
            while let Err(error) = link.send(streamed()).await {
                assert!(error.is_not_sent(), "{error}");
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, back).await.expect("it is back");
        is_fine(&link).await;
        assert_eq!(link.dialect(), Some(dialect));
        drop(served);
        while link.dialect().is_some() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn many_who_need_it_make_one() {
    let (listener, link) = listen().await;
    let link = Arc::new(link);
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let serving = tokio::spawn(async move {
        loop {
            let mut peer = accept(&listener).await;
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                while let Some(Ok((_, mut respond))) = peer.accept().await {
                    answer(&mut respond);
                }
            });
        }
    });
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let link = link.clone();
        asking.spawn(async move { is_fine(&link).await });
    }
    asking.join_all().await;
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    serving.abort();
}

#[tokio::test]
async fn a_refused_stream_was_not_sent() {
    let (listener, link) = listen().await;
    let serving = async {
        let mut peer = accept(&listener).await;
        request(&mut peer).await.send_reset(h2::Reason::REFUSED_STREAM);
        request(&mut peer).await.send_reset(h2::Reason::CANCEL);
        let _ = peer.accept().await;
    };
    let asking = async {
        assert!(link.send(streamed()).await.unwrap_err().is_not_sent());
        assert!(!link.send(streamed()).await.unwrap_err().is_not_sent());
        link.close();
        assert!(link.send(streamed()).await.unwrap_err().is_not_sent());
    };
    tokio::join!(serving, asking);
}

#[tokio::test]
async fn a_worker_that_takes_nothing_new_finishes_what_it_has() {
    let (listener, link) = listen().await;
    let serving = async {
        let mut old = accept(&listener).await;
        let mut first = request(&mut old).await;
        let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut stream = first.send_response(head, false).unwrap();
        stream.send_data(Bytes::from_static(&[0, 0, 0, 0, 3, 0x12, 1, b'a']), false).unwrap();
        old.graceful_shutdown();
        let new = async {
            let mut new = accept(&listener).await;
            answer(&mut request(&mut new).await);
            stream.send_data(Bytes::from_static(&[0, 0, 0, 0, 5, 0x12, 1, b'b', 0x18, 1]), false).unwrap();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            stream.send_trailers(trailers).unwrap();
            let _ = new.accept().await;
        };
        let old = async { while old.accept().await.is_some() {} };
        tokio::join!(old, new);
    };
    let asking = async {
        let mut first = sent(&link, streamed()).await.into_body();
        let begun = next(&mut first).await.unwrap().unwrap();
        // Until its farewell is here, calls over the old connection come to nothing, and nothing was sent.
        let second = loop {
            match timeout(PATIENCE, link.send(streamed())).await.expect("an answer") {
                Ok(answer) => break answer,
                Err(error) => assert!(error.is_not_sent(), "{error}"),
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(content(&events(&text(second).await.unwrap())), "fine");
        let mut all = begun.to_vec();
        while let Some(more) = next(&mut first).await {
            all.extend_from_slice(&more.expect("the old connection goes on"));
        }
        assert_eq!(content(&events(std::str::from_utf8(&all).unwrap())), "ab");
        link.close();
    };
    timeout(PATIENCE, async { tokio::join!(serving, asking) }).await.expect("an end");
}

#[tokio::test]
async fn a_worker_that_does_not_answer_pings_is_given_up() {
    let (listener, link) = listen().await;
    drop(link);
    let address = listener.local_addr().unwrap().to_string();
    let builder = GrpcLink::builder(&address).dialect(Dialect::Packaged);
    let link = build(builder.keepalive(Duration::from_millis(30), Duration::from_millis(30)));
    let serving = async {
        let mut peer = accept(&listener).await;
        let _respond = request(&mut peer).await;
        // From here on nobody reads what comes.
        std::future::pending::<()>().await;
    };
    let asking = async {
        let error = link.send(streamed()).await.unwrap_err();
        assert!(!error.is_not_sent(), "it may have been seen: {error}");
    };
    tokio::select! {
        () = serving => unreachable!("it waits"),
        done = timeout(PATIENCE, asking) => done.expect("it is given up"),
    }
}

#[tokio::test]
async fn a_worker_that_answers_pings_may_take_its_time() {
    let worker = Worker::new(|_, reply| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        reply.text("fine").await;
        reply.end().await;
    });
    let served = worker.serve(Dialect::Packaged).await;
    let builder = GrpcLink::builder(served.address());
    let link = build(builder.keepalive(Duration::from_millis(10), Duration::from_secs(5)));
    is_fine(&link).await;
}
