//! Tens of thousands of small chunks, through a tunnel to a proxy before an HTTP engine, as an LLM sends
//! them: no wake-up may be lost between the four parts that pass each chunk on.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway_core::RequestBody;
use gateway_testkit::{MockEngine, Script, text};
use gateway_transport_http::HttpLink;
use support::{Gateway, TunnelRunner};

const CHUNKS: usize = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_chunk_of_long_streams_arrives() {
    let chunk =
        Bytes::from_static(b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"token\"}}]}\n\n");
    let engine = MockEngine::new(move |_| Script::chunks(std::iter::repeat_n(chunk.clone(), CHUNKS)));
    let server = engine.serve_http().await.unwrap();
    let http = HttpLink::new(server.url()).unwrap();
    let gateway = Gateway::default().await;
    let _runner = TunnelRunner::start(&gateway, "r1", 256, Arc::new(http)).await;
    let link = gateway.runner("r1").unwrap().link().clone();
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let link = link.clone();
        streams.spawn(async move {
            let request = http::Request::post("/x").body(RequestBody::from("{}")).unwrap();
            let whole = async { text(link.send(request).await.unwrap()).await.unwrap() };
            let whole =
                tokio::time::timeout(Duration::from_secs(60), whole).await.expect("the stream stalls");
            assert_eq!(whole.matches("token").count(), CHUNKS);
        });
    }
    while let Some(done) = streams.join_next().await {
        done.unwrap();
    }
}
