//! Heads of requests and answers, on the wire and in the gateway's own model.

use bytes::Bytes;
use gateway_core::{LinkRequest, RequestBody};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Uri, request, response};

use super::super::mux::Violation;
use super::HEAD_BYTES;
use crate::proto::runner_gateway::{Header, RequestHead, ResponseHead};

/// What each header costs beside its bytes, as HTTP/2 counts it.
const OVERHEAD: usize = 32;

/// A head is longer than [`HEAD_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a head of {0} bytes is too long; {HEAD_BYTES} may be")]
pub(crate) struct HeadTooLong(usize);

/// The head of a request. `body` tells its length and whether there is one.
pub(crate) fn request_to(
    head: &request::Parts,
    body: &RequestBody,
    end: bool,
) -> Result<RequestHead, HeadTooLong> {
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut headers = headers_to(&head.headers, path.len())?;
    if let Some(len) = body.len().filter(|len| *len > 0) {
        // Lets the runner know at once whether it can hold the body.
        headers.retain(|header| header.name != header::CONTENT_LENGTH.as_str());
        headers
            .push(Header { name: header::CONTENT_LENGTH.as_str().to_owned(), value: len.to_string().into() });
    }
    let (method, path) = (head.method.as_str().to_owned(), path.to_owned());
    Ok(RequestHead { stream_id: 0, method, path, headers, end })
}

/// The head of a request, and the length of its body if it says so.
pub(crate) fn request_from(head: RequestHead) -> Result<(request::Parts, Option<u64>), Violation> {
    let id = head.stream_id;
    let wrong = |what: &str| Violation(format!("{what} of request {id} is missing or wrong"));
    let mut request = LinkRequest::new(RequestBody::empty());
    *request.method_mut() = Method::from_bytes(head.method.as_bytes()).map_err(|_| wrong("the method"))?;
    if !head.path.starts_with('/') {
        return Err(wrong("the path"));
    }
    let len = head.path.len();
    *request.uri_mut() = Uri::try_from(head.path).map_err(|_| wrong("the path"))?;
    let mut headers = headers_from(head.headers, len)?;
    let length = headers.remove(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    *request.headers_mut() = headers;
    Ok((request.into_parts().0, length))
}

/// The head of an answer, without what concerns one connection only.
pub(crate) fn response_to(
    head: &mut response::Parts,
    stream_id: u64,
    end: bool,
) -> Result<ResponseHead, HeadTooLong> {
    for hop in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ] {
        head.headers.remove(hop);
    }
    let headers = headers_to(&head.headers, 0)?;
    Ok(ResponseHead { stream_id, status: head.status.as_u16().into(), headers, end })
}

/// The head of an answer.
pub(crate) fn response_from(head: ResponseHead) -> Result<(StatusCode, HeaderMap), Violation> {
    let id = head.stream_id;
    let status = u16::try_from(head.status).ok().filter(|status| *status >= 200);
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    let status =
        status.ok_or_else(|| Violation(format!("{} is no status of an answer, stream {id}", head.status)))?;
    Ok((status, headers_from(head.headers, 0)?))
}

pub(crate) fn trailers_to(trailers: &HeaderMap) -> Vec<Header> {
    // Trailers that are too long are left out, as HTTP allows; the body is whole without them.
    headers_to(trailers, 0).unwrap_or_default()
}

/// `None` if there are none.
pub(crate) fn trailers_from(trailers: Vec<Header>) -> Result<Option<HeaderMap>, Violation> {
    if trailers.is_empty() {
        return Ok(None);
    }
    headers_from(trailers, 0).map(Some)
}

fn headers_to(headers: &HeaderMap, mut len: usize) -> Result<Vec<Header>, HeadTooLong> {
    len += headers.iter().map(|(name, value)| name.as_str().len() + value.len() + OVERHEAD).sum::<usize>();
    if len > HEAD_BYTES {
        return Err(HeadTooLong(len));
    }
    let one = |(name, value): (&HeaderName, &HeaderValue)| Header {
        name: name.as_str().to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    Ok(headers.iter().map(one).collect())
}

fn headers_from(headers: Vec<Header>, mut len: usize) -> Result<HeaderMap, Violation> {
    len += headers.iter().map(|header| header.name.len() + header.value.len() + OVERHEAD).sum::<usize>();
    if len > HEAD_BYTES {
        return Err(Violation(HeadTooLong(len).to_string()));
    }
    let mut map = HeaderMap::with_capacity(headers.len());
    for Header { name, value } in headers {
        // Not what stands there: it may be a secret.
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Violation("the name of a header is none".to_owned()))?;
        // Copied, so that what is kept of a head does not keep the frame that it came in.
        let value = HeaderValue::from_bytes(&value)
            .map_err(|_| Violation(format!("the value of the header {name} cannot be sent")))?;
        map.append(name, value);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_out_as_it_went_in() {
        let request =
            http::Request::post("/v1/x?a=b").header("x-a", "1").header("x-a", "\u{e9}").body(()).unwrap();
        let (head, ()) = request.into_parts();
        let sent = request_to(&head, &RequestBody::from("abc"), false).unwrap();
        let (back, len) = request_from(sent).unwrap();
        assert_eq!((back.method, back.uri, back.headers), (head.method, head.uri, head.headers));
        assert_eq!(len, Some(3));
    }

    #[test]
    fn heads_are_checked() {
        let head = |method: &str, path: &str| RequestHead {
            stream_id: 7,
            method: method.to_owned(),
            path: path.to_owned(),
            ..RequestHead::default()
        };
        assert!(request_from(head("GET", "/")).is_ok());
        for (method, path) in [("", "/"), ("GET", ""), ("G T", "/"), ("GET", "x"), ("GET", "/\u{0}")] {
            let error = request_from(head(method, path)).unwrap_err();
            assert!(error.to_string().contains("request 7"), "{error}");
        }
        let long = Header { name: "x".to_owned(), value: vec![b'x'; HEAD_BYTES].into() };
        assert!(request_from(RequestHead { headers: vec![long], ..head("GET", "/") }).is_err());
        for status in [0, 100, 199, 1000, 70_000] {
            assert!(response_from(ResponseHead { status, ..ResponseHead::default() }).is_err());
        }
    }
}
