//! Runners that dial in for the control protocol only: requests go to the HTTP port that they advertise.
//!
//! What such runners add to their answers for the gateway alone is taken out here, and nothing else: the
//! event `simple_ai_metrics` of a stream, and the field `_simple_ai_metrics` of a JSON object.

mod field;
mod sse;

use std::net::IpAddr;

use async_trait::async_trait;
use bytes::Bytes;
use gateway_core::{
    LinkAbilities, LinkBody, LinkDescription, LinkError, LinkRequest, LinkResponse, RunnerLink,
};
use gateway_transport_http::{HttpLink, InvalidAddress};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;

use sse::WithoutMetrics;

/// Longest JSON body that is searched for the field, in bytes; a longer one passes as it is.
const SEARCHED: u64 = 1024 * 1024;

/// The way to a runner that is dialled back.
pub(crate) struct DialBackLink {
    http: HttpLink,
}

impl DialBackLink {
    pub(crate) fn new(ip: IpAddr, port: u16) -> Result<Self, InvalidAddress> {
        // An IPv4 peer on a socket that takes both is written as IPv6.
        let address = std::net::SocketAddr::new(ip.to_canonical(), port);
        let http = HttpLink::builder(format!("http://{address}")).transport_name("dial-back").build()?;
        Ok(Self { http })
    }
}

#[async_trait]
impl RunnerLink for DialBackLink {
    fn describe(&self) -> LinkDescription {
        self.http.describe()
    }

    async fn send(&self, request: LinkRequest) -> Result<LinkResponse, LinkError> {
        let (mut head, body) = self.http.send(request).await?.into_parts();
        let body = if head.headers.contains_key(CONTENT_ENCODING) {
            body
        } else if has_type(&head.headers, "text/event-stream") {
            head.headers.remove(CONTENT_LENGTH);
            LinkBody::new(WithoutMetrics::new(body))
        } else if has_type(&head.headers, "application/json")
            && declared_len(&head.headers).is_some_and(|len| len <= SEARCHED)
        {
            // Whole before its head is passed on, because the head tells its length.
            without_field(&mut head.headers, body.collect().await?.to_bytes())
        } else {
            body
        };
        Ok(http::Response::from_parts(head, body))
    }

    fn abilities(&self) -> LinkAbilities {
        self.http.abilities()
    }

    fn close(&self) {
        self.http.close();
    }
}

fn has_type(headers: &HeaderMap, expected: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(expected)
}

fn declared_len(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn without_field(headers: &mut HeaderMap, body: Bytes) -> LinkBody {
    let body = field::remove(body, "_simple_ai_metrics");
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    LinkBody::full(body)
}
