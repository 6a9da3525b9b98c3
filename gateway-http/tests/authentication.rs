//! Who may use which route.

mod common;

use common::*;
use gateway_http::{AuthError, Authenticator, Decision, Gateway, Identity};
use http::Request;
use http_body_util::Full;

const CLIENTS: [(&str, &str); 5] = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/m"),
];
const ADMINS: [(&str, &str); 7] = [
    ("GET", "/runners"),
    ("GET", "/admin/runners"),
    ("POST", "/admin/runners/r1/load-model"),
    ("POST", "/admin/runners/r1/unload-model"),
    ("POST", "/admin/runners/r1/drain"),
    ("GET", "/admin/runners/events"),
    ("POST", "/admin/explain"),
];
const OPEN: [&str; 3] = ["/health", "/readyz", "/v1/metadata"];

fn request(method: &str, path: &str) -> Request<Full<bytes::Bytes>> {
    let body = Full::from(r#"{"model":"m","model_id":"m","drain":false}"#);
    Request::builder().method(method).uri(path).body(body).unwrap()
}

async fn status(gateway: &Gateway, request: Request<Full<bytes::Bytes>>) -> u16 {
    send(gateway, request).await.status().as_u16()
}

fn refused(status: u16) -> bool {
    matches!(status, 401 | 403)
}

#[tokio::test]
async fn each_route_takes_its_own_tokens_only() {
    let link = Mock::ok();
    let gateway = with_runner(&link);
    for (routes, right, wrong) in [(&CLIENTS[..], CLIENT, ADMIN), (&ADMINS[..], ADMIN, CLIENT)] {
        for (method, path) in routes {
            assert!(!refused(status(&gateway, with_key(request(method, path), right)).await), "{path}");
            assert_eq!(status(&gateway, with_key(request(method, path), wrong)).await, 401, "{path}");
            let answer = whole(&gateway, request(method, path)).await;
            assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{path}");
            let (kind, code, _) = answer.error();
            assert_eq!((&*kind, code.as_deref()), ("invalid_request_error", Some("invalid_api_key")));
        }
    }
    for path in OPEN {
        assert!(!refused(status(&gateway, request("GET", path)).await), "{path}");
        assert!(!refused(status(&gateway, with_key(request("GET", path), "wrong")).await), "{path}");
    }
}

#[tokio::test]
async fn several_tokens_and_both_headers_are_taken() {
    let gateway = Gateway::builder().client_tokens(["one", "two"]).client_tokens(["three"]).build().unwrap();
    for token in ["one", "two", "three"] {
        assert_eq!(status(&gateway, with_key(get("/v1/models"), token)).await, 200, "{token}");
        let mut by_other_header = get("/v1/models");
        by_other_header.headers_mut().insert("x-api-key", token.parse().unwrap());
        assert_eq!(status(&gateway, by_other_header).await, 200, "{token}");
    }
}

#[tokio::test]
async fn a_wrong_key_is_not_repeated_to_anybody() {
    let link = Mock::ok();
    let gateway = with_runner(&link);
    let answer = whole(&gateway, with_key(chat(r#"{"model":"m"}"#), "hunter2")).await;
    assert_eq!(answer.status, 401);
    assert!(!String::from_utf8_lossy(&answer.body).contains("hunter2"));
    assert!(link.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn anonymous_access_is_given_by_name() {
    let gateway = Gateway::builder().allow_anonymous_clients().build().unwrap();
    assert_eq!(status(&gateway, get("/v1/models")).await, 200);
    // Nothing was said about admins.
    for (method, path) in ADMINS {
        let answer = whole(&gateway, request(method, path)).await;
        assert_eq!(answer.status, 403, "{path}");
        assert_eq!(answer.error().1.as_deref(), Some("admin_api_off"));
    }
    let gateway = Gateway::builder().client_tokens(["x"]).allow_anonymous_admins().build().unwrap();
    assert_eq!(status(&gateway, get("/admin/runners")).await, 200);
    assert_eq!(status(&gateway, get("/v1/models")).await, 401);
}

/// Knows `x-user`, and says something else for some of them.
struct ByHeader;

impl Authenticator for ByHeader {
    fn authenticate<'a>(
        &'a self,
        request: &'a http::request::Parts,
    ) -> Decision<'a, Result<Identity, AuthError>> {
        let user = request.headers.get("x-user").map(|user| user.as_bytes());
        Decision::later(async move {
            tokio::task::yield_now().await;
            match user {
                Some(b"ann") => Ok(Identity::named("ann")),
                Some(b"guest") => Err(AuthError::forbidden()),
                Some(b"outage") => Err(AuthError::unavailable()),
                _ => Err(AuthError::missing()),
            }
        })
    }
}

#[tokio::test]
async fn an_authenticator_of_one_s_own_decides_and_an_outage_is_no_wrong_key() {
    let gateway =
        Gateway::builder().client_authenticator(ByHeader).admin_authenticator(ByHeader).build().unwrap();
    for (user, expected) in [("ann", 200), ("guest", 403), ("outage", 503), ("bob", 401)] {
        for path in ["/v1/models", "/admin/runners"] {
            let mut request = get(path);
            request.headers_mut().insert("x-user", user.parse().unwrap());
            assert_eq!(status(&gateway, request).await, expected, "{user} {path}");
        }
    }
}
