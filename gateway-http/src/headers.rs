//! Which headers pass.

use gateway_core::RequestId;
use http::header::{self, HeaderMap, HeaderName};

use crate::respond::REQUEST_ID;

/// These are about one connection only (RFC 9110, section 7.6.1, and the older names still in use).
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// These are between the client and the gateway, or are set anew by the link.
fn is_for_nobody(name: &HeaderName) -> bool {
    matches!(name.as_str(), "host" | "content-length" | "expect" | "proxy-authorization")
}

/// What a client shows to be let in.
fn is_credential(name: &HeaderName) -> bool {
    matches!(name.as_str(), "authorization" | "x-api-key" | "api-key")
}

/// Nothing of these is for inference. An engine that compresses an event stream holds tokens back until a block is full,
/// and an error event could not be added to it.
fn is_not_for_inference(name: &HeaderName) -> bool {
    matches!(name.as_str(), "cookie" | "accept-encoding")
}

/// Leaves what a runner may see of a request for inference.
pub(crate) fn for_runner(headers: &mut HeaderMap, id: &RequestId) {
    without(headers, |name| {
        is_hop_by_hop(name) || is_for_nobody(name) || is_credential(name) || is_not_for_inference(name)
    });
    headers.insert(REQUEST_ID, id.header().clone());
}

/// Leaves what a runner may see of a request that is none of the gateway's business.
pub(crate) fn for_task(headers: &mut HeaderMap, id: &RequestId, with_credentials: bool) {
    without(headers, |name| {
        is_hop_by_hop(name) || is_for_nobody(name) || (is_credential(name) && !with_credentials)
    });
    headers.insert(REQUEST_ID, id.header().clone());
}

/// Removes what is about one connection only, with what `connection` names.
pub(crate) fn without_hop_by_hop(headers: &mut HeaderMap) {
    without(headers, is_hop_by_hop);
}

/// Removes these, and what `connection` names if that is one of them. Looks at what is there: that is mostly less than
/// what might be.
fn without(headers: &mut HeaderMap, is_unwanted: impl Fn(&HeaderName) -> bool) {
    let mut unwanted: Vec<HeaderName> = headers.keys().filter(|name| is_unwanted(name)).cloned().collect();
    if unwanted.contains(&header::CONNECTION) {
        let named = (headers.get_all(header::CONNECTION).iter())
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            // Nobody can take the length of a body away.
            .filter(|name| *name != header::CONTENT_LENGTH && *name != header::CONTENT_TYPE);
        unwanted.extend(named);
    }
    for name in unwanted {
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
