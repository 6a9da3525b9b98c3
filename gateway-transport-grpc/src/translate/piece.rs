//! One message of an answer, without copying its text.

use std::str::Utf8Error;

use bytes::{Buf, Bytes};
use prost::DecodeError;
use prost::encoding::{self, DecodeContext, decode_key, skip_field};

/// What of a `StreamPredictResponse` matters. Its fields are the same on the wire in both dialects.
///
/// The generated type would make two strings of it for every token.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    text: Bytes,
    /// Whether it is the last.
    pub(crate) is_last: bool,
}

/// Why a message of an answer cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PieceError {
    #[error("a message cannot be read: {0}")]
    Decode(#[from] DecodeError),
    #[error("a chunk is not UTF-8: {0}")]
    Utf8(#[from] Utf8Error),
}

impl Piece {
    pub(crate) fn decode(mut message: Bytes) -> Result<Self, PieceError> {
        const CHUNK: u32 = 2;
        const END_OF_STREAM: u32 = 3;
        let mut piece = Self::default();
        while message.has_remaining() {
            let (tag, wire_type) = decode_key(&mut message)?;
            let context = DecodeContext::default();
            match tag {
                CHUNK => encoding::bytes::merge(wire_type, &mut piece.text, &mut message, context)?,
                END_OF_STREAM => encoding::bool::merge(wire_type, &mut piece.is_last, &mut message, context)?,
                _ => skip_field(wire_type, tag, &mut message, context)?,
            }
        }
        Ok(piece)
    }

    pub(crate) fn text(&self) -> Result<&str, PieceError> {
        Ok(std::str::from_utf8(&self.text)?)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::{ai_inference, cy_llm};

    #[test]
    fn reads_what_either_dialect_writes() {
        let packaged = cy_llm::StreamPredictResponse {
            trace_id: "t".into(),
            chunk: "täxt".into(),
            end_of_stream: true,
            index: 7,
            ttft_ms: 1.5,
            tokens_per_sec: 2.5,
        };
        let plain = ai_inference::StreamPredictResponse::from(packaged.clone());
        for bytes in [packaged.encode_to_vec(), plain.encode_to_vec()] {
            let piece = Piece::decode(bytes.into()).unwrap();
            assert_eq!((piece.text().unwrap(), piece.is_last), ("täxt", true));
        }
        assert!(Piece::decode(Bytes::from_static(&[0x12, 9, b'x'])).is_err(), "less than it says");
        assert!(Piece::decode(Bytes::from_static(&[0x12, 1, 0xff])).unwrap().text().is_err());
    }
}
