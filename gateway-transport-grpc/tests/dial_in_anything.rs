//! Whatever a peer sends, at either end: no panic, bounded memory, a clear end, and nobody else is touched.

mod dial_in_support;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use dial_in_support::client::register;
use dial_in_support::{Engine, Gateway, Network, agent, run};
use gateway_core::{LinkBody, Registry};
use gateway_transport_grpc::proto::runner_gateway::{
    CommandResult, Data, End, Error, GatewayFrame, GoAway, Header, ModelCommand, Ping, Registered,
    RequestHead, Reset, ResponseHead, RunnerFrame, RunnerStatus, StatusCommand, WindowUpdate, gateway_frame,
    runner_frame,
};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proptest::prelude::*;
use prost::Message;
use tower_service::Service;

const PATH: &str = "/inference_gateway.runner.v1.RunnerGateway/Connect";

/// A body of these bytes, in pieces of that size.
struct Pieces {
    bytes: Bytes,
    size: usize,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let size = self.size.clamp(1, self.bytes.len());
        Poll::Ready(Some(Ok(Frame::data(self.bytes.split_to(size)))))
    }
}

fn message(frame: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(frame.encoded_len() as u32);
    frame.encode(&mut bytes).unwrap();
    bytes.freeze()
}

/// The numbers of streams that are begun, and some that are not.
fn id() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0u64..6, 1 => any::<u64>()]
}

fn data() -> impl Strategy<Value = Data> {
    let len = prop_oneof![10 => 0usize..400, 2 => 16_000usize..16_400, 1 => 60_000usize..70_000];
    (id(), len).prop_map(|(stream_id, len)| Data { stream_id, data: vec![b'x'; len].into() })
}

fn headers() -> impl Strategy<Value = Vec<Header>> {
    let name = prop_oneof![4 => Just("x-a".to_owned()), 1 => ".{0,6}"];
    let header = (name, proptest::collection::vec(any::<u8>(), 0..6));
    let header = header.prop_map(|(name, value)| Header { name, value: value.into() });
    proptest::collection::vec(header, 0..2)
}

fn reset() -> impl Strategy<Value = Reset> {
    (id(), -1i32..7).prop_map(|(stream_id, reason)| Reset { stream_id, reason, ..Reset::default() })
}

fn window() -> impl Strategy<Value = WindowUpdate> {
    let bytes = prop_oneof![8 => 1u32..100_000, 1 => any::<u32>()];
    (id(), bytes).prop_map(|(stream_id, bytes)| WindowUpdate { stream_id, bytes })
}

fn end() -> impl Strategy<Value = End> {
    (id(), headers()).prop_map(|(stream_id, trailers)| End { stream_id, trailers })
}

fn from_runner() -> impl Strategy<Value = RunnerFrame> {
    use runner_frame::Frame as F;
    let status = |number| RunnerStatus { health: number, ..RunnerStatus::default() };
    let head = (id(), prop_oneof![4 => Just(200u32), 1 => any::<u32>()], headers(), any::<bool>());
    let frame = prop_oneof![
        1 => Just(F::Register(register("r1"))),
        2 => (-3i32..9).prop_map(move |number| F::Heartbeat(status(number))),
        1 => ".{0,9}".prop_map(|request_id| F::CommandResult(CommandResult { request_id, ..Default::default() })),
        8 => head.prop_map(|(stream_id, status, headers, end)| {
            F::ResponseHead(ResponseHead { stream_id, status, headers, end })
        }),
        8 => data().prop_map(F::ResponseBody),
        4 => end().prop_map(F::ResponseEnd),
        4 => reset().prop_map(F::Reset),
        4 => window().prop_map(F::WindowUpdate),
        1 => Just(F::GoAway(GoAway {})),
        1 => Just(F::Error(Error::default())),
    ];
    proptest::option::weighted(0.98, frame).prop_map(|frame| RunnerFrame { frame })
}

fn from_gateway() -> impl Strategy<Value = GatewayFrame> {
    use gateway_frame::Frame as F;
    let method = prop_oneof![8 => Just("POST".to_owned()), 1 => ".{0,4}"];
    let path = prop_oneof![8 => Just("/".to_owned()), 1 => ".{0,4}"];
    let head = (id(), method, path, headers(), any::<bool>());
    let frame = prop_oneof![
        1 => Just(F::Registered(Registered::default())),
        2 => ".{0,9}".prop_map(|model| F::LoadModel(ModelCommand { model, ..Default::default() })),
        1 => Just(F::RequestStatus(StatusCommand::default())),
        2 => Just(F::Ping(Ping::default())),
        10 => head.prop_map(|(stream_id, method, path, headers, end)| {
            F::RequestHead(RequestHead { stream_id, method, path, headers, end })
        }),
        8 => data().prop_map(F::RequestBody),
        4 => end().prop_map(F::RequestEnd),
        4 => reset().prop_map(F::Reset),
        4 => window().prop_map(F::WindowUpdate),
        1 => Just(F::GoAway(GoAway {})),
        1 => Just(F::Error(Error::default())),
    ];
    proptest::option::weighted(0.98, frame).prop_map(|frame| GatewayFrame { frame })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// A body whose frames are sent one by one while the call goes on.
type Feed = tokio::sync::mpsc::UnboundedSender<Bytes>;

/// What the gateway makes of a runner that registers, is sent requests, and then sends these bytes; or that sends
/// them at once. Gives the status of the call.
async fn at_the_gateway(registers: bool, bytes: Bytes, size: usize) -> String {
    let gateway = Gateway::default().await;
    let _other = gateway.join("other").await;
    gateway.joined("other").await;
    let (feed, mut fed): (Feed, _) = tokio::sync::mpsc::unbounded_channel();
    let body = http_body_util::StreamBody::new(futures_util::stream::poll_fn(move |cx| {
        fed.poll_recv(cx)
            .map(|chunk| chunk.map(|chunk| Ok::<_, std::convert::Infallible>(Frame::data(chunk))))
    }));
    let request = http::Request::post(PATH).header("content-type", "application/grpc").body(body).unwrap();
    let answer = gateway.service.clone().call(request).await.unwrap().into_body();
    let reading = tokio::spawn(answer.collect());
    let mut asking = tokio::task::JoinSet::new();
    if registers {
        let frame = Some(runner_frame::Frame::Register(register("r1")));
        feed.send(message(&RunnerFrame { frame })).unwrap();
        let link = gateway.joined("r1").await.link().clone();
        for nth in 0..3 {
            let link = link.clone();
            asking.spawn(async move {
                let body = vec![b'x'; nth * 70_000];
                let Ok(mut answer) = link.send(dial_in_support::post(body)).await else { return };
                // One reads all, one stalls after the first, one leaves.
                let first = dial_in_support::next_chunk_lenient(answer.body_mut()).await;
                match nth {
                    0 => while dial_in_support::next_chunk_lenient(answer.body_mut()).await {},
                    1 if first => std::future::pending().await,
                    _ => {}
                }
            });
        }
        // They are on their way.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    let mut bytes = bytes;
    while !bytes.is_empty() {
        let size = size.clamp(1, bytes.len());
        let _ = feed.send(bytes.split_to(size));
    }
    drop(feed);
    let answer = tokio::time::timeout(Duration::from_secs(100), reading).await.expect("the call did not end");
    let answer = answer.unwrap().expect("it ends in good order");
    let status =
        answer.trailers().expect("a call ends with its status")["grpc-status"].to_str().unwrap().to_owned();
    dial_in_support::soon(gateway.until(|fleet| fleet.runner("r1").is_none())).await;
    // Whoever waited for it knows; only the one that stalled by itself is still there.
    asking.shutdown().await;
    assert!(gateway.registry.fleet().runner("other").is_some(), "another runner was touched");
    status
}

/// What the agent makes of a gateway that lets it in and then sends these bytes; or that sends them at once.
async fn at_the_agent(registers: bool, bytes: Bytes, size: usize) {
    let (good, network) = (Gateway::default().await, Network::default());
    let _hosted = network.host("good", &good);
    let mut dialled = network.listen("bad");
    let engine = Engine::answering(|request| async move {
        let body = request.into_body().collect().await.map_err(gateway_core::LinkError::request_body)?;
        Ok(http::Response::new(LinkBody::full(body.to_bytes())))
    });
    let running = run(agent(&network, &["good", "bad"], engine, 4));
    good.joined("gpu-1").await;
    let stream = dial_in_support::soon(dialled.recv()).await.unwrap();
    let mut all = BytesMut::new();
    if registers {
        all.extend_from_slice(&message(&GatewayFrame {
            frame: Some(gateway_frame::Frame::Registered(Registered {
                runner_id: "gpu-1".to_owned(),
                max_streams: 4,
                stream_window: 65_536,
                heartbeat_interval_ms: 0,
            })),
        }));
    }
    all.extend_from_slice(&bytes);
    let all = all.freeze();
    let heard = Arc::new(std::sync::Mutex::new(0));
    let counting = heard.clone();
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let body = Pieces { bytes: all.clone(), size };
        let counting = counting.clone();
        async move {
            tokio::spawn(async move {
                let mut body = request.into_body();
                while let Some(Ok(frame)) = body.frame().await {
                    *counting.lock().unwrap() += frame.data_ref().map_or(0, Bytes::len);
                }
            });
            let answer = http::Response::builder().header("content-type", "application/grpc");
            Ok::<_, std::convert::Infallible>(answer.body(body).unwrap())
        }
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    tokio::spawn(async move {
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    });
    // It gives this one up and dials it again, and keeps the other.
    let again = tokio::time::timeout(Duration::from_secs(100), dialled.recv()).await;
    assert!(again.is_ok(), "it did not dial again");
    assert!(*heard.lock().unwrap() < 1024 * 1024);
    assert!(running.is_running());
    let runner = good.runner("gpu-1").expect("the other gateway was left");
    assert_eq!(runner.key().generation.0, 1);
    let answer = dial_in_support::soon(runner.link().send(dial_in_support::post("hello"))).await.unwrap();
    assert_eq!(gateway_testkit::text(answer).await.unwrap(), "hello");
}

fn frames<T: Message>(frames: &[T]) -> Bytes {
    let mut bytes = BytesMut::new();
    frames.iter().for_each(|frame| bytes.extend_from_slice(&message(frame)));
    bytes.freeze()
}

/// Bytes, and bytes behind a prefix that fits them: those reach the decoder of frames.
fn any_bytes() -> impl Strategy<Value = Bytes> {
    let raw = proptest::collection::vec(any::<u8>(), 0..300);
    let framed = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..6);
    let framed = framed.prop_map(|messages| {
        let mut bytes = Vec::new();
        for message in messages {
            bytes.push(0);
            bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
            bytes.extend_from_slice(&message);
        }
        bytes
    });
    prop_oneof![raw, framed].prop_map(Bytes::from)
}

/// Good frames with some bytes changed.
fn damaged<T: Message>(frames: impl Strategy<Value = Vec<T>>) -> impl Strategy<Value = Bytes> {
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (frames, changes).prop_map(|(frames, changes)| {
        let mut bytes = self::frames(&frames).to_vec();
        for (at, to) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
        }
        bytes.into()
    })
}

/// The end of a call may be good (0), wrong frames (3), or a token that is none (16), a version that is none (9).
fn fine(status: &str) -> bool {
    ["0", "3", "16", "9", "14"].contains(&status)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn the_gateway_takes_any_bytes(registers: bool, bytes in any_bytes(), size in 1usize..400) {
        let status = runtime().block_on(at_the_gateway(registers, bytes, size));
        prop_assert!(fine(&status), "{}", status);
    }

    #[test]
    fn the_gateway_takes_any_frames(
        sent in proptest::collection::vec(from_runner(), 0..24),
        size in prop_oneof![1usize..60, 1000usize..100_000],
    ) {
        let status = runtime().block_on(at_the_gateway(true, frames(&sent), size));
        prop_assert!(fine(&status), "{}", status);
    }

    #[test]
    fn the_gateway_takes_damaged_frames(
        bytes in damaged(proptest::collection::vec(from_runner(), 1..10)),
        size in 1usize..2000,
    ) {
        let status = runtime().block_on(at_the_gateway(true, bytes, size));
        prop_assert!(fine(&status), "{}", status);
    }

    #[test]
    fn the_agent_takes_any_bytes(registers: bool, bytes in any_bytes(), size in 1usize..400) {
        runtime().block_on(at_the_agent(registers, bytes, size));
    }

    #[test]
    fn the_agent_takes_any_frames(
        sent in proptest::collection::vec(from_gateway(), 0..24),
        size in prop_oneof![1usize..60, 1000usize..100_000],
    ) {
        runtime().block_on(at_the_agent(true, frames(&sent), size));
    }

    #[test]
    fn the_agent_takes_damaged_frames(
        bytes in damaged(proptest::collection::vec(from_gateway(), 1..10)),
        size in 1usize..2000,
    ) {
        runtime().block_on(at_the_agent(true, bytes, size));
    }
}
