//! Whatever bytes a client sends: it gets an answer, and nothing breaks.

mod server_support;

use std::sync::OnceLock;

use bytes::Bytes;
use gateway_transport_grpc::GrpcServer;
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use proptest::prelude::*;
use server_support::*;
use tower_service::Service;

const CASES: u32 = 2_000;

const METHODS: [&str; 7] = [
    "/cy.llm.AiInference/StreamPredict",
    "/AiInference/StreamPredict",
    "/cy.llm.AiInference/Control",
    "/AiInference/Health",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/other/Method",
];

fn runtime() -> &'static (tokio::runtime::Runtime, GrpcServer) {
    static RUNTIME: OnceLock<(tokio::runtime::Runtime, GrpcServer)> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let server = runtime.block_on(async { serve(&words(&["a"])).1 });
        (runtime, server)
    })
}

/// The status of a call with these pieces as its body.
fn status(method: &str, pieces: Vec<Vec<u8>>) -> Option<String> {
    let (runtime, server) = runtime();
    let frames = pieces
        .into_iter()
        .map(|piece| Ok::<_, std::convert::Infallible>(http_body::Frame::data(Bytes::from(piece))));
    let request = Request::post(method)
        .header("content-type", "application/grpc")
        .header("authorization", format!("Bearer {CLIENT}"))
        .body(StreamBody::new(tokio_stream::iter(frames)))
        .unwrap();
    runtime.block_on(async {
        let answer = server.clone().call(request).await.unwrap_or_else(|never| match never {});
        assert_eq!(answer.status(), 200);
        let (head, body) = answer.into_parts();
        let whole = body.collect().await.expect("a body that ends in order");
        let code = head.headers.get("grpc-status").or_else(|| whole.trailers()?.get("grpc-status"));
        code.map(|code| code.to_str().unwrap().to_owned())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn any_bytes_get_a_status(
        method in prop::sample::select(&METHODS[..]),
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..6),
    ) {
        prop_assert!(status(method, pieces).is_some());
    }

    #[test]
    fn any_message_gets_a_status(
        method in prop::sample::select(&METHODS[..]),
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..4),
    ) {
        let framed = messages.into_iter().map(|message| {
            let mut frame = vec![0];
            frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
            frame.extend_from_slice(&message);
            frame
        });
        prop_assert!(status(method, framed.collect()).is_some());
    }
}
