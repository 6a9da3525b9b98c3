//! Which headers pass.

use gateway_core::RequestId;
use http::header::{self, HeaderMap, HeaderName};

use crate::respond::REQUEST_ID;

/// These are about one connection only (RFC 9110, section 7.6.1, and the older names still in use).
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// These are between the client and the gateway, or are set anew by the link.
const NOT_FOR_ANYBODY: [HeaderName; 4] =
    [header::HOST, header::CONTENT_LENGTH, header::EXPECT, header::PROXY_AUTHORIZATION];

/// What a client shows to be let in.
const CREDENTIALS: [HeaderName; 3] =
    [header::AUTHORIZATION, HeaderName::from_static("x-api-key"), HeaderName::from_static("api-key")];

/// Nothing of these is for inference.
const NOT_FOR_INFERENCE: [HeaderName; 2] = [
    header::COOKIE,
    // An engine that compresses an event stream holds tokens back until a block is full, and an error
    // event could not be added to it.
    header::ACCEPT_ENCODING,
];

/// Leaves what a runner may see of a request for inference.
pub(crate) fn for_runner(headers: &mut HeaderMap, id: &RequestId) {
    for_task(headers, id, false);
    for name in &NOT_FOR_INFERENCE {
        headers.remove(name);
    }
}

/// Leaves what a runner may see of a request that is none of the gateway's business.
pub(crate) fn for_task(headers: &mut HeaderMap, id: &RequestId, with_credentials: bool) {
    without_hop_by_hop(headers);
    for name in &NOT_FOR_ANYBODY {
        headers.remove(name);
    }
    for name in CREDENTIALS.iter().filter(|_| !with_credentials) {
        headers.remove(name);
    }
    headers.insert(REQUEST_ID, id.header().clone());
}

/// Removes what is about one connection only, with what `connection` names.
pub(crate) fn without_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            // Nobody can take the length of a body away.
            .filter(|name| *name != header::CONTENT_LENGTH && *name != header::CONTENT_TYPE)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_connection_names_goes_with_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("connection", "x-other"),
            ("x-mine", "1"),
            ("x-other", "2"),
            ("keep-alive", "5"),
            ("authorization", "Bearer secret"),
            ("x-api-key", "secret"),
            ("cookie", "a=b"),
            ("accept", "text/event-stream"),
            ("openai-beta", "assistants=v2"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        for_runner(&mut headers, &RequestId::random());
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "openai-beta", "x-request-id"]);
    }
}
