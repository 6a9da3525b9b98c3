//! Which headers of a generic request and its answer pass, and what is added.

mod common;
mod generic_support;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use common::*;
use gateway_core::{LinkBody, PeerAddr};
use gateway_http::{Forwarding, Gateway, GenericRoute};
use generic_support::*;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::Full;

fn gateway(route: GenericRoute, forwarding: Forwarding, link: &Arc<Mock>) -> Gateway {
    let gateway = with_route(route).forwarding(forwarding).build().unwrap();
    add(&gateway, "r1", link.clone());
    gateway
}

/// What reaches the runner of a request with these headers from that address.
async fn seen(
    route: GenericRoute,
    forwarding: Forwarding,
    peer: Option<&str>,
    sent: &[(&str, &str)],
) -> HeaderMap {
    let link = Mock::ok();
    let gateway = gateway(route, forwarding, &link);
    let mut request = as_client(get("/task"));
    for (name, value) in sent {
        request.headers_mut().append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    if let Some(peer) = peer {
        request.extensions_mut().insert(PeerAddr(format!("{peer}:1").parse::<SocketAddr>().unwrap()));
    }
    assert_eq!(whole(&gateway, request).await.status, 200);
    link.last().headers
}

fn any() -> GenericRoute {
    GenericRoute::prefix("/")
}

fn list<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn what_is_about_one_connection_stays_there() {
    let sent = [
        ("connection", "close, X-Mine"),
        ("connection", "x-other"),
        ("x-mine", "1"),
        ("x-other", "2"),
        ("keep-alive", "5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic x"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
        ("expect", "100-continue"),
        ("host", "tasks.example"),
        ("x-api-key", "secret"),
        ("cookie", "session=1"),
        ("accept-encoding", "br"),
        ("range", "bytes=0-5"),
    ];
    let headers = seen(any(), Forwarding::default(), None, &sent).await;
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let expected = [
        "accept-encoding",
        "cookie",
        "forwarded",
        "range",
        "via",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-request-id",
    ];
    // HTTP/2's settings are about the connection, too, but a client that means them names them in `connection`.
    names.retain(|name| *name != "http2-settings");
    assert_eq!(names, expected);
}

#[tokio::test]
async fn credentials_pass_if_the_route_says_so() {
    let sent = [("x-api-key", "for the task")];
    let headers = seen(any().pass_credentials(true), Forwarding::default(), None, &sent).await;
    assert_eq!(headers["x-api-key"], "for the task");
    assert_eq!(headers["authorization"], "Bearer client-secret");
}

#[tokio::test]
async fn of_an_answer_too() {
    let link = Mock::new(|_| async {
        let mut answer = Response::new(LinkBody::full("x"));
        for (name, value) in [
            ("connection", "x-mine"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("set-cookie", "a=b"),
            ("content-encoding", "br"),
            ("location", "/tasks/8"),
        ] {
            answer.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        Ok(answer)
    });
    let gateway = gateway(any(), Forwarding::default(), &link);
    let answer = whole(&gateway, as_client(get("/task"))).await;
    let mut names: Vec<_> = answer.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let expected =
        ["content-encoding", "location", "set-cookie", "x-backend-used", "x-request-id", "x-router-reason"];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn strangers_are_not_believed() {
    let lies = [
        ("x-forwarded-for", "10.9.9.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "bank.example"),
        ("forwarded", "for=10.9.9.9"),
        ("x-real-ip", "10.9.9.9"),
        ("host", "tasks.example:8080"),
    ];
    for trusting in [Forwarding::default(), Forwarding::default().trust(["10.0.0.0/8"]).unwrap()] {
        let headers = seen(any(), trusting, Some("192.0.2.7"), &lies).await;
        assert_eq!(list(&headers, "x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(list(&headers, "x-forwarded-proto"), ["http"]);
        assert_eq!(list(&headers, "x-forwarded-host"), ["tasks.example:8080"]);
        assert_eq!(list(&headers, "forwarded"), [r#"for=192.0.2.7;host="tasks.example:8080";proto=http"#]);
        assert!(!headers.contains_key("x-real-ip"));
    }
}

#[tokio::test]
async fn who_is_trusted_is_added_to() {
    let said = [
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-for", "198.51.100.4"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "public.example"),
        ("forwarded", "for=192.0.2.7;proto=https"),
        ("via", "1.1 edge"),
        ("host", "inner"),
    ];
    let ours = Forwarding::default().trust(["10.0.0.0/8", "2001:db8::1"]).unwrap();
    let headers = seen(any(), ours.clone(), Some("10.1.2.3"), &said).await;
    assert_eq!(list(&headers, "x-forwarded-for"), ["192.0.2.7, 198.51.100.4, 10.1.2.3"]);
    assert_eq!(list(&headers, "x-forwarded-proto"), ["https"]);
    assert_eq!(list(&headers, "x-forwarded-host"), ["public.example"]);
    let forwarded = r#"for=192.0.2.7;proto=https, for=10.1.2.3;host="inner";proto=http"#;
    assert_eq!(list(&headers, "forwarded"), [forwarded]);
    assert_eq!(list(&headers, "via"), ["1.1 edge, 1.1 inference-gateway"]);

    let headers = seen(any(), ours, Some("[2001:db8::1]"), &said[..1]).await;
    assert_eq!(list(&headers, "x-forwarded-for"), ["192.0.2.7, 2001:db8::1"]);
    assert_eq!(list(&headers, "forwarded"), [r#"for="[2001:db8::1]";proto=http"#]);

    // Without an address there is nobody to trust, unless everybody is.
    let unknown = Forwarding::default().trust(["0.0.0.0/0"]).unwrap();
    let headers = seen(any(), unknown, None, &said[..1]).await;
    assert!(!headers.contains_key("x-forwarded-for"));
    assert_eq!(list(&headers, "forwarded"), ["for=unknown;proto=http"]);
    let headers = seen(any(), Forwarding::default().trust_everybody().over_tls(true), None, &said[..1]).await;
    assert_eq!(list(&headers, "x-forwarded-for"), ["192.0.2.7"]);
    assert_eq!(list(&headers, "x-forwarded-proto"), ["https"]);
}

#[test]
fn networks_are_checked() {
    let error = Forwarding::default().trust(["10.0.0.0/33"]).unwrap_err().to_string();
    assert!(error.contains("10.0.0.0/33") && error.contains("10.0.0.0/8"), "{error}");
}

#[tokio::test]
async fn a_named_header_does_not_take_what_is_told_along() {
    let sent = [("connection", "x-forwarded-for, forwarded, x-request-id")];
    let headers = seen(any(), Forwarding::default(), Some("192.0.2.7"), &sent).await;
    assert_eq!(list(&headers, "x-forwarded-for"), ["192.0.2.7"]);
    assert!(headers.contains_key("forwarded") && headers.contains_key("x-request-id"));
}

#[tokio::test]
async fn an_answer_to_head_keeps_its_length() {
    let link = Mock::new(|_| async {
        let mut answer = Response::new(LinkBody::full(Bytes::new()));
        answer.headers_mut().insert("content-length", HeaderValue::from_static("1234"));
        Ok(answer)
    });
    let gateway = gateway(any(), Forwarding::default(), &link);
    let request =
        Request::builder().method(Method::HEAD).uri("/task").body(Full::<Bytes>::default()).unwrap();
    let answer = whole(&gateway, as_client(request)).await;
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("1234")));
    assert_eq!(link.last().method, Method::HEAD);
}
