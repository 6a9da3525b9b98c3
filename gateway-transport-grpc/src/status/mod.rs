//! What a gRPC call ended with.

mod retry_info;
pub(crate) mod to_grpc;
pub(crate) mod to_http;

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, header};
use percent_encoding::percent_decode;
use tonic::Code;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// A worker's word on how a call ended.
///
/// Read here and not by tonic, whose reading panics at details that are not base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkerStatus {
    pub(crate) code: Code,
    pub(crate) message: String,
    /// For how long it asks to be left alone.
    pub(crate) retry_after: Option<Duration>,
}

impl WorkerStatus {
    /// What the trailers say, or a head that has them in it; `None` if they do not say it.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        let code = headers.get(&STATUS)?.to_str().ok()?.parse().ok()?;
        let message =
            headers.get(&MESSAGE).map(|message| percent_decode(message.as_bytes()).decode_utf8_lossy());
        Some(Self {
            code: Code::from_i32(code),
            message: message.unwrap_or_default().into_owned(),
            retry_after: retry_after(headers),
        })
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.code == Code::Ok
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let told =
        headers.get(header::RETRY_AFTER).and_then(|seconds| seconds.to_str().ok()?.trim().parse().ok());
    told.map(Duration::from_secs).or_else(|| retry_info::read(headers.get(&DETAILS)?.as_bytes()))
}

impl fmt::Display for WorkerStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code.description())?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

impl std::error::Error for WorkerStatus {}
