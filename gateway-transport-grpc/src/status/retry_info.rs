//! `google.rpc.RetryInfo` in the details of a status.

use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The padding may be there or not: gRPC's rules for headers with bytes in them.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The delay in the header's value. What cannot be read says nothing.
pub(super) fn read(details: &[u8]) -> Option<Duration> {
    let details = BASE64.decode(details).ok()?;
    Status::with_details(Code::Unknown, "", details.into()).get_details_retry_info()?.retry_delay
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_delay_is_found_and_nonsense_is_not() {
        let mut details = ErrorDetails::with_debug_info(Vec::<String>::new(), "x");
        details.set_retry_info(Some(Duration::from_millis(7500)));
        let status = Status::with_error_details(Code::Unavailable, "", details);
        for text in
            [BASE64_STANDARD.encode(status.details()), BASE64_STANDARD_NO_PAD.encode(status.details())]
        {
            assert_eq!(read(text.as_bytes()), Some(Duration::from_millis(7500)));
        }
        for nonsense in [&b"!!"[..], b"", b"AAAA", b"\xff"] {
            assert_eq!(read(nonsense), None);
        }
    }
}
