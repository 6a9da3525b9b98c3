//! What goes first, and what does not pile up.

use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

use super::*;
use crate::proto::runner_gateway::{
    GatewayFrame, Ping, RequestHead, ResponseHead, RunnerFrame, gateway_frame, runner_frame,
};

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn head(id: u64) -> GatewayFrame {
    let head = RequestHead { stream_id: id, ..RequestHead::default() };
    GatewayFrame { frame: Some(gateway_frame::Frame::RequestHead(head)) }
}

fn begin(mux: &Arc<Mux<GatewaySide>>) -> Handle<GatewaySide> {
    mux.begin(false, head).unwrap()
}

/// All that is to be sent now, in its order: kind and stream.
fn sent(mux: &Arc<Mux<GatewaySide>>) -> Vec<(&'static str, u64)> {
    let mut all = BytesMut::new();
    let mut buffer = BytesMut::new();
    while let Poll::Ready(Filled::Bytes(payload)) = mux.fill(&mut context(), &mut buffer) {
        all.extend_from_slice(&buffer.split());
        all.extend_from_slice(&payload.unwrap_or_default());
    }
    let mut kinds = Vec::new();
    while all.has_remaining() {
        all.advance(1);
        let len = all.get_u32() as usize;
        use gateway_frame::Frame;
        kinds.push(match GatewayFrame::decode(all.split_to(len)).unwrap().frame.unwrap() {
            Frame::Ping(_) => ("ping", 0),
            Frame::RequestHead(head) => ("head", head.stream_id),
            Frame::RequestBody(data) => ("data", data.stream_id),
            Frame::RequestEnd(end) => ("end", end.stream_id),
            Frame::Reset(reset) => ("reset", reset.stream_id),
            other => panic!("{other:?}"),
        });
    }
    kinds
}

#[test]
fn what_must_not_wait_goes_before_data_and_data_goes_in_turn() {
    let mux = Mux::new();
    mux.allow(8);
    let first = begin(&mux);
    let given_up = begin(&mux);
    assert_eq!(sent(&mux), [("head", 1), ("head", 2)]);
    let mut large = Bytes::from(vec![b'x'; 40_000]);
    assert!(first.poll_send(&mut context(), &mut large).is_ready());
    first.send_end(HeaderMap::new());
    let second = begin(&mux);
    let mut small = Bytes::from_static(b"small");
    assert!(second.poll_send(&mut context(), &mut small).is_ready());
    drop(given_up);
    mux.say(GatewayFrame { frame: Some(gateway_frame::Frame::Ping(Ping::default())) }).unwrap();
    let rest = [("data", 1), ("data", 3), ("data", 1), ("data", 1), ("end", 1)];
    assert_eq!(sent(&mux), [&[("ping", 0), ("reset", 2), ("head", 3)][..], &rest].concat());
}

#[test]
fn nothing_piles_up_while_nobody_writes() {
    let mux = Mux::new();
    mux.allow(8);
    for _ in 0..10_000 {
        let stream = begin(&mux);
        let _ = stream.poll_send(&mut context(), &mut Bytes::from_static(b"x"));
    }
    let state = mux.state();
    assert_eq!((state.streams.len(), state.heads.len(), state.ring.len(), state.resets.len()), (0, 0, 0, 0));
}

#[test]
fn nothing_piles_up_at_a_runner_whose_gateway_does_not_read() {
    let mux = Mux::<RunnerSide>::new();
    mux.allow(8);
    let take = |frame| mux.take(GatewayFrame { frame: Some(frame) });
    for id in 1..=10_000 {
        let request = RequestHead { stream_id: id, end: true, ..RequestHead::default() };
        let taken = take(gateway_frame::Frame::RequestHead(request));
        let Ok(Taken::Begun(stream, _)) = taken else { panic!("it was not begun") };
        let answer = ResponseHead { stream_id: id, status: 200, ..ResponseHead::default() };
        stream.answer(RunnerFrame { frame: Some(runner_frame::Frame::ResponseHead(answer)) }, false);
        let _ = stream.poll_send(&mut context(), &mut Bytes::from_static(b"x"));
        stream.send_end(HeaderMap::new());
        drop(stream);
        // The answer is queued whole; the gateway gives it up.
        let reset = Reset { stream_id: id, ..Reset::default() };
        assert!(take(gateway_frame::Frame::Reset(reset)).is_ok());
    }
    let state = mux.state();
    assert_eq!((state.streams.len(), state.heads.len(), state.ring.len(), state.resets.len()), (0, 0, 0, 0));
    drop(state);
    // And one that only begins is stopped.
    let flood = (20_000..20_100).find_map(|stream_id| {
        let request = RequestHead { stream_id, ..RequestHead::default() };
        take(gateway_frame::Frame::RequestHead(request)).err()
    });
    assert!(flood.unwrap().to_string().contains("more than the 8"));
}
