//! Questions to an engine: bounded in time and size, and never inference.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gateway_core::{LinkError, RequestBody, RunnerLink};
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body::Body;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::link::HttpLink;

/// A run of questions that shares one deadline.
pub(super) struct Probe<'a> {
    link: &'a HttpLink,
    deadline: Instant,
}

/// What an engine answered.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    body: Bytes,
}

impl<'a> Probe<'a> {
    /// The longest answer that is read, in bytes. A list of 10,000 models is about 2 MiB.
    pub(super) const MAX_BODY: usize = 8 * 1024 * 1024;

    pub(super) fn new(link: &'a HttpLink, limit: Duration) -> Self {
        Self { link, deadline: Instant::now() + limit }
    }

    pub(super) async fn get(&self, path: &'static str) -> Result<Reply, LinkError> {
        let mut request = Request::new(RequestBody::empty());
        *request.uri_mut() = Uri::from_static(path);
        self.ask(request).await
    }

    pub(super) async fn post(
        &self,
        path: &'static str,
        json: &serde_json::Value,
    ) -> Result<Reply, LinkError> {
        let mut request = Request::new(RequestBody::from(json.to_string()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(path);
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.ask(request).await
    }

    /// A question whose answer is welcome but not needed: `None` unless it is a good one in JSON.
    pub(super) async fn look<T: DeserializeOwned>(&self, path: &'static str) -> Option<T> {
        let reply = self.get(path).await.ok()?;
        if reply.status.is_success() { reply.json() } else { None }
    }

    async fn ask(&self, request: Request<RequestBody>) -> Result<Reply, LinkError> {
        let answer = async {
            let (head, mut body) = self.link.send(request).await?.into_parts();
            let mut bytes = BytesMut::new();
            while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let Ok(data) = frame?.into_data() else { continue };
                if bytes.len() + data.len() > Self::MAX_BODY {
                    return Err(LinkError::lost("the answer to a probe is longer than 8 MiB"));
                }
                bytes.extend_from_slice(&data);
            }
            Ok(Reply { status: head.status, body: bytes.freeze() })
        };
        match tokio::time::timeout_at(self.deadline, answer).await {
            Ok(reply) => reply,
            Err(_) => Err(LinkError::timed_out("a probe of the engine")),
        }
    }
}

impl Reply {
    /// The answer as JSON, if it is of that shape.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_default()
    }

    /// The engine's own words on what went wrong, shortened.
    pub(super) fn complaint(&self) -> String {
        const LONGEST: usize = 300;
        let json: Option<serde_json::Value> = self.json();
        let message = json.as_ref().and_then(|json| {
            let error = json.get("error").unwrap_or(json);
            error.as_str().or_else(|| error.get("message")?.as_str())
        });
        let words: String = message.unwrap_or(self.text()).chars().take(LONGEST).collect();
        let words = words.trim();
        if words.is_empty() { self.status.to_string() } else { format!("{}: {words}", self.status.as_u16()) }
    }
}

/// Reads a field of any shape, and takes one of a shape that is not `T`'s for absent: one odd field of an
/// engine's must not hide all the others.
pub(super) fn lenient<'de, D, T>(field: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: DeserializeOwned,
{
    let value: serde_json::Value = serde::Deserialize::deserialize(field)?;
    Ok(serde_json::from_value(value).ok())
}

/// As [`lenient`], and in a list only the entries that are not of `T`'s shape are left out.
pub(super) fn each<'de, D, T>(field: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: DeserializeOwned,
{
    let entries: Option<Vec<serde_json::Value>> = lenient(field)?;
    let all =
        entries.map(|entries| entries.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()));
    Ok(all.map(Iterator::collect))
}

/// The sum of a gauge over all its label sets, out of Prometheus text. `None` if it is not there.
pub(super) fn gauge(text: &str, name: &str) -> Option<u32> {
    gauge_of(text, name, |_| true)
}

/// The sum over those label sets that are asked for.
pub(super) fn gauge_of(text: &str, name: &str, is_meant: impl Fn(&str) -> bool) -> Option<u32> {
    let mut sum = None;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name) else { continue };
        let value = match rest.as_bytes().first() {
            Some(b'{') => {
                rest.rsplit_once('}').filter(|(labels, _)| is_meant(labels)).map(|(_, value)| value)
            }
            Some(b' ' | b'\t') => Some(rest),
            // Another metric whose name begins alike.
            _ => None,
        };
        let number = value.and_then(|value| value.split_whitespace().next()?.parse::<f64>().ok());
        if let Some(number) = number.filter(|number| number.is_finite() && *number >= 0.0) {
            sum = Some(sum.unwrap_or(0.0) + number);
        }
    }
    sum.map(|sum| sum as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_are_summed_over_their_labels() {
        let text = "# TYPE vllm:num_requests_running gauge\n\
            vllm:num_requests_running{engine=\"0\",model_name=\"a {x}\"} 3.0\n\
            vllm:num_requests_running{engine=\"1\",model_name=\"a\"} 2.0\n\
            vllm:num_requests_running_max 90\n\
            llamacpp:requests_processing 4\n\
            broken NaN\n";
        assert_eq!(gauge(text, "vllm:num_requests_running"), Some(5));
        assert_eq!(gauge(text, "llamacpp:requests_processing"), Some(4));
        assert_eq!(gauge(text, "vllm:num_requests_waiting"), None);
        assert_eq!(gauge(text, "broken"), None);
        let second = |labels: &str| labels.contains("engine=\"1\"");
        assert_eq!(gauge_of(text, "vllm:num_requests_running", second), Some(2));
    }

    #[test]
    fn complaints_are_the_engines_words() {
        let reply = |body: &str| Reply {
            status: StatusCode::NOT_FOUND,
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        assert_eq!(reply(r#"{"error":"model 'x' not found"}"#).complaint(), "404: model 'x' not found");
        assert_eq!(reply(r#"{"error":{"message":"no","code":1}}"#).complaint(), "404: no");
        assert_eq!(reply(r#"{"message":"no"}"#).complaint(), "404: no");
        assert_eq!(reply("plain").complaint(), "404: plain");
        assert_eq!(reply("").complaint(), "404 Not Found");
        assert!(reply(&"long ".repeat(1000)).complaint().len() < 400);
    }
}
