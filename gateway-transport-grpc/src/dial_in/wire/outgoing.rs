//! The body of one side of the call: frames as they are due.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::super::mux::{Filled, Mux, Side};

/// Space for one batch of frames and the last of them.
const BUFFER: usize = 20 * 1024;

/// `request_body` and `response_body` have the same number, 9, and the same form.
const BODY_TAG: u8 = 9 << 3 | 2;
const STREAM_ID_TAG: u8 = 1 << 3;
const DATA_TAG: u8 = 2 << 3 | 2;

/// Writes what a [`Mux`] has to say. When it is dropped, nothing can be said any more.
pub(crate) struct Outgoing<S: Side> {
    mux: Arc<Mux<S>>,
    buffer: BytesMut,
    /// The payload of the last frame, if it was not copied.
    payload: Option<Bytes>,
    done: bool,
}

impl<S: Side> Outgoing<S> {
    pub(crate) fn new(mux: Arc<Mux<S>>) -> Self {
        Self { mux, buffer: BytesMut::new(), payload: None, done: false }
    }
}

impl<S: Side> Body for Outgoing<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if let Some(payload) = this.payload.take() {
            return Poll::Ready(Some(Ok(Frame::data(payload))));
        }
        if this.done {
            return Poll::Ready(None);
        }
        if this.buffer.capacity() < BUFFER / 4 {
            // Gets the old space back if all of it has been sent.
            this.buffer.reserve(BUFFER);
        }
        match ready!(this.mux.fill(cx, &mut this.buffer)) {
            Filled::Bytes(payload) => {
                this.payload = payload;
                Poll::Ready(Some(Ok(Frame::data(this.buffer.split().freeze()))))
            }
            Filled::Farewell(trailers) => {
                this.done = true;
                Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))))
            }
        }
    }
}

impl<S: Side> Drop for Outgoing<S> {
    fn drop(&mut self) {
        self.mux.end();
    }
}

/// Writes a frame with its prefix.
pub(crate) fn encode(frame: &impl Message, buffer: &mut BytesMut) {
    let len = frame.encoded_len();
    put_prefix(len, buffer);
    // Fails only for want of space, which grows.
    let _ = frame.encode(buffer);
}

/// Writes a frame with so many bytes of data, all but the data.
pub(crate) fn encode_data(id: u64, len: usize, buffer: &mut BytesMut) {
    let data_len = len as u64;
    let inner = 1 + encoded_len_varint(id) + 1 + encoded_len_varint(data_len) + len;
    put_prefix(1 + encoded_len_varint(inner as u64) + inner, buffer);
    buffer.put_u8(BODY_TAG);
    encode_varint(inner as u64, buffer);
    buffer.put_u8(STREAM_ID_TAG);
    encode_varint(id, buffer);
    buffer.put_u8(DATA_TAG);
    encode_varint(data_len, buffer);
}

fn put_prefix(len: usize, buffer: &mut BytesMut) {
    buffer.put_u8(0);
    // Frames are far shorter than that.
    buffer.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dial_in::mux::{Common, GatewaySide, RunnerSide};
    use crate::proto::runner_gateway::Data;

    proptest! {
        #[test]
        fn data_is_written_as_the_generated_code_would(
            stream_id in 1u64..,
            data in proptest::collection::vec(any::<u8>(), 1..20_000),
        ) {
            let mut ours = BytesMut::new();
            encode_data(stream_id, data.len(), &mut ours);
            ours.extend_from_slice(&data);
            let data = Data { stream_id, data: data.into() };
            let (mut request, mut response) = (BytesMut::new(), BytesMut::new());
            encode(&GatewaySide::frame(Common::Data(data.clone())), &mut request);
            encode(&RunnerSide::frame(Common::Data(data)), &mut response);
            prop_assert!(ours == request && ours == response);
        }
    }
}
