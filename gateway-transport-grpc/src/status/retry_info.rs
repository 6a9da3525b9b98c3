//! `google.rpc.RetryInfo` in the details of a status, as [`error_details.proto`] has it.
//!
//! [`error_details.proto`]: https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto

use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use prost::Message;

/// The padding may be there or not: gRPC's rules for headers with bytes in them.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `google.rpc.Status`, as far as it matters here.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// The delay in the header's value. What cannot be read says nothing.
pub(super) fn read(details: &[u8]) -> Option<Duration> {
    let bytes = BASE64.decode(details).ok()?;
    let status = Status::decode(Bytes::from(bytes)).ok()?;
    let info = status.details.into_iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value).ok()?.retry_delay?;
    Some(Duration::new(delay.seconds.try_into().ok()?, delay.nanos.clamp(0, 999_999_999).try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_found_and_nonsense_is_not() {
        let info = RetryInfo { retry_delay: Some(Delay { seconds: 7, nanos: 500_000_000 }) };
        let any = |type_url: &str, value: Vec<u8>| Any { type_url: type_url.into(), value: value.into() };
        let details = vec![
            any("type.googleapis.com/google.rpc.DebugInfo", vec![1]),
            any("type.googleapis.com/google.rpc.RetryInfo", info.encode_to_vec()),
        ];
        let status = Status { details }.encode_to_vec();
        for padded in
            [base64::engine::general_purpose::STANDARD, base64::engine::general_purpose::STANDARD_NO_PAD]
        {
            assert_eq!(read(padded.encode(&status).as_bytes()), Some(Duration::from_millis(7500)));
        }
        for nonsense in [&b"!!"[..], b"", b"AAAA", b"\xff"] {
            assert_eq!(read(nonsense), None);
        }
    }
}
