//! Who calls, and what of the call's head goes over to the gateway.

use std::time::Duration;

use bytes::Bytes;
use gateway_core::RequestId;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Extensions, Method, Request, Uri};
use http_body_util::Full;
use tokio::time::Instant;
use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::status::to_grpc::REQUEST_ID;

const TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// These say how the call itself is made.
const OF_THE_CALL: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::TE,
    header::TRAILER,
    header::ACCEPT_ENCODING,
    header::HOST,
    header::EXPECT,
];

/// The head of a call: credentials, and whatever else clients say of requests in headers.
#[derive(Debug, Clone, Default)]
pub(super) struct Caller {
    headers: HeaderMap,
    /// What the host knows of the connection, for whoever asks who is there.
    extensions: Extensions,
    /// By when the client wants the call to be over.
    pub(super) deadline: Option<Instant>,
}

impl Caller {
    /// # Errors
    /// The time for the call cannot be read.
    pub(super) fn new(metadata: MetadataMap, extensions: Extensions) -> Result<Self, Status> {
        let mut headers = metadata.into_headers();
        let deadline = match headers.get(GRPC_TIMEOUT) {
            Some(value) => {
                let timeout = value.to_str().ok().and_then(timeout).ok_or_else(|| {
                    Status::invalid_argument(
                        "The metadata `grpc-timeout` must be up to eight digits and one of H, M, S, m, u, n.",
                    )
                })?;
                Instant::now().checked_add(timeout)
            }
            None => None,
        };
        for name in &OF_THE_CALL {
            headers.remove(name);
        }
        let of_grpc =
            |name: &&HeaderName| name.as_str().starts_with("grpc-") || name.as_str().ends_with("-bin");
        let names: Vec<HeaderName> = headers.keys().filter(of_grpc).cloned().collect();
        for name in names {
            headers.remove(name);
        }
        Ok(Self { headers, extensions, deadline })
    }

    /// A request of this caller.
    pub(super) fn request(
        &self,
        method: Method,
        uri: Uri,
        trace_id: &str,
        body: Bytes,
    ) -> Request<Full<Bytes>> {
        let has_body = !body.is_empty();
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.extensions_mut() = self.extensions.clone();
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        if has_body {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let id = HeaderValue::from_str(trace_id).ok();
        // One that is no header is only told back.
        if let Some(id) = id.filter(|id| RequestId::from_header(id).is_some()) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis().max(1);
            if let Ok(left) = u32::try_from(left) {
                headers.insert(TIMEOUT, HeaderValue::from(left));
            }
        }
        request
    }
}

/// As gRPC's description of its protocol has it.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_grpc_writes_them() {
        assert_eq!(timeout("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(timeout("2M"), Some(Duration::from_secs(120)));
        assert_eq!(timeout("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("7u"), Some(Duration::from_micros(7)));
        assert_eq!(timeout("9n"), Some(Duration::from_nanos(9)));
        for wrong in ["", "S", "1", "1s", "-1S", "123456789S", "1 S", "é"] {
            assert_eq!(timeout(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_about_the_call_itself_stays_behind() {
        let mut metadata = MetadataMap::new();
        for (name, value) in [
            ("authorization", "Bearer t"),
            ("x-api-key", "k"),
            ("x-session-id", "s"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-timeout", "5S"),
            ("grpc-encoding", "gzip"),
            ("trace-bin", "AAAA"),
        ] {
            metadata.as_mut().insert(name, HeaderValue::from_static(value));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _in = runtime.enter();
        let caller = Caller::new(metadata, Extensions::new()).unwrap();
        let request =
            caller.request(Method::POST, Uri::from_static("/x"), "trace 1", Bytes::from_static(b"{}"));
        let mut names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["authorization", "content-type", "x-api-key", "x-request-timeout-ms", "x-session-id"]
        );
        assert_eq!(request.headers()["content-type"], "application/json");
        let request = caller.request(Method::GET, Uri::from_static("/x"), "trace-1", Bytes::new());
        assert_eq!(request.headers()["x-request-id"], "trace-1");
        assert!(!request.headers().contains_key("content-type"));
    }
}
