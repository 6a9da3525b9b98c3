//! What is kept of a request, in case the connection that it went over was dead.

use std::sync::{Arc, Mutex};

use gateway_core::{LinkRequest, RequestBody};
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body::Body;

use super::outgoing::{Kept, Outgoing};

/// What it takes to send a request a second time. It is seldom needed, and a list of headers is made and dropped with less
/// work than a map of them.
pub(super) struct Spare {
    method: Method,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: SpareBody,
}

enum SpareBody {
    Held(RequestBody),
    Kept(Arc<Mutex<Kept>>),
}

impl Spare {
    /// Whether enough of the body can be kept.
    pub(super) fn is_possible(body: &RequestBody) -> bool {
        body.size_hint().lower() <= Kept::LIMIT as u64 || body.can_replay()
    }

    /// Splits a request into one to send and one to keep.
    pub(super) fn split(request: LinkRequest) -> (Request<Outgoing>, Self) {
        let (head, body) = request.into_parts();
        let (body, kept) = match body.replay() {
            Some(copy) => (Outgoing::once(body), SpareBody::Held(copy)),
            None => {
                let (body, kept) = Outgoing::keep(body);
                (body, SpareBody::Kept(kept))
            }
        };
        let headers = head.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let spare = Self { method: head.method.clone(), uri: head.uri.clone(), headers, body: kept };
        (Request::from_parts(head, body), spare)
    }

    pub(super) fn into_request(self) -> Option<Request<Outgoing>> {
        let body = match self.body {
            SpareBody::Held(body) => Outgoing::once(body),
            SpareBody::Kept(kept) => Outgoing::again(kept)?,
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        request.headers_mut().extend(self.headers);
        Some(request)
    }
}
