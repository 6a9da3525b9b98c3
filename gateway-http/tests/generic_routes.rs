//! Which requests go to runners as they are, and which do not.

mod common;
mod generic_support;

use std::sync::Arc;

use bytes::Bytes;
use common::*;
use gateway_core::ModelId;
use gateway_http::{BuildError, Gateway, GenericRoute, InvalidRoute, Need, OpenApi};
use generic_support::*;
use http::{Method, Request};
use http_body_util::Full;

fn build(routes: impl IntoIterator<Item = GenericRoute>, link: &Arc<Mock>) -> Gateway {
    let builder = routes.into_iter().fold(builder(), |builder, route| builder.generic(route));
    let gateway = builder.build().unwrap();
    add(&gateway, "r1", link.clone());
    gateway
}

async fn ask(gateway: &Gateway, method: &str, path: &str) -> Whole {
    let request = Request::builder().method(method).uri(path).body(Full::<Bytes>::default()).unwrap();
    whole(gateway, as_client(request)).await
}

#[tokio::test]
async fn templates_exact_paths_and_methods() {
    let link = Mock::ok();
    let api = parse(
        r#"{"/tasks": {"get": {}, "delete": {}, "description": "all"},
            "/tasks/{id}/run": {"post": {}},
            "/tasks/{id}.json": {"get": {}},
            "/tasks/latest/{what}": {"get": {}, "options": {}},
            "x-internal": 5}"#,
    );
    let gateway = build([GenericRoute::openapi(api)], &link);
    for (method, path, status) in [
        ("GET", "/tasks", 200),
        ("HEAD", "/tasks", 200),
        ("DELETE", "/tasks", 200),
        ("POST", "/tasks", 405),
        ("GET", "/tasks/", 404),
        ("POST", "/tasks/7/run?x=1&y=%2F", 200),
        ("POST", "/tasks/a%2Fb/run", 200),
        ("POST", "/tasks//run", 404),
        ("POST", "/tasks/7/run/", 404),
        ("POST", "/tasks/7/8/run", 404),
        ("GET", "/tasks/7/run", 405),
        ("GET", "/tasks/7.json", 200),
        ("GET", "/tasks/7.xml", 404),
        ("GET", "/tasks/latest/log", 200),
        ("OPTIONS", "/tasks/latest/log", 200),
        ("OPTIONS", "/tasks", 405),
        ("CONNECT", "/tasks", 404),
        ("GET", "/other", 404),
        ("GET", "/TASKS", 404),
    ] {
        let answer = ask(&gateway, method, path).await;
        assert_eq!(answer.status, status, "{method} {path}");
        if status == 200 {
            let seen = link.last();
            assert_eq!((seen.method.as_str(), seen.uri.as_str()), (method, path));
            // Nothing of the host's. For the link: on whose account it is, and that it must not be repeated.
            assert_eq!((seen.extensions, seen.claim.is_some()), (1 + usize::from(method == "POST"), true));
        }
    }
    let answer = ask(&gateway, "PATCH", "/tasks").await;
    assert_eq!(answer.error().1.as_deref(), Some("method_not_allowed"));
    assert_eq!(answer.header("allow"), Some("DELETE, GET, HEAD"));
}

#[tokio::test]
async fn the_gateway_s_own_routes_win() {
    let link = Mock::ok();
    let api =
        parse(r#"{"/health": {"get": {}}, "/v1/models/{id}": {"delete": {}}, "/capacity": {"get": {}}}"#);
    let gateway = build([GenericRoute::openapi(api), GenericRoute::prefix("/")], &link);
    for (method, path, status) in [
        ("GET", "/health", 200),
        ("DELETE", "/v1/models/m", 405),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/admin/runners", 401),
        ("GET", "/runners", 401),
    ] {
        assert_eq!(ask(&gateway, method, path).await.status, status, "{method} {path}");
    }
    assert!(link.seen.lock().unwrap().is_empty());
    assert_eq!(ask(&gateway, "GET", "/capacity").await.status, 200);
    assert_eq!(ask(&gateway, "GET", "/v1/audio/speech").await.status, 200);
    assert_eq!(link.seen.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_prefix_takes_what_is_below_it() {
    let link = Mock::ok();
    let exact = GenericRoute::openapi(parse(r#"{"/apps/{name}": {"get": {}}}"#));
    let gateway = build([GenericRoute::prefix("/apps/"), exact], &link);
    for (method, path, status) in [
        ("GET", "/apps", 200),
        ("POST", "/apps/", 200),
        ("DELETE", "/apps/a/b/c", 200),
        // A template wins over a prefix, with its methods.
        ("GET", "/apps/a", 200),
        ("POST", "/apps/a", 405),
        ("GET", "/application", 404),
        ("GET", "/", 404),
    ] {
        assert_eq!(ask(&gateway, method, path).await.status, status, "{method} {path}");
    }
}

#[tokio::test]
async fn nobody_climbs_out_of_a_route() {
    let link = Mock::ok();
    let gateway =
        build([GenericRoute::prefix("/apps"), GenericRoute::openapi(document(&["/tasks/{id}"]))], &link);
    for path in
        ["/apps/../secret", "/apps/%2e%2e/secret", "/apps/.%2E/s", "/apps/./s", "/tasks/..", "/tasks/%2E"]
    {
        assert_eq!(ask(&gateway, "GET", path).await.status, 404, "{path}");
    }
    for path in ["/apps/...", "/apps/.hidden", "/apps/a..b", "/tasks/%2e%2e%2e", "/tasks/é%2"] {
        let path = path.replace('é', "%C3%A9");
        assert_eq!(ask(&gateway, "GET", &path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn paths_stand_behind_those_of_the_servers() {
    let link = Mock::ok();
    let api = OpenApi::from_json(
        r#"{"openapi": "3.0.3",
            "servers": [{"url": "https://{host}/{base}/", "variables": {"host": {"default": "h"}, "base": {"default": "v2"}}},
                        {"url": "/internal"}, {"url": "http://other.example"}, {"url": "/internal/"}],
            "paths": {"/tasks": {"get": {}}}}"#,
    )
    .unwrap();
    assert_eq!(api.base_paths(), ["/v2", "/internal", ""]);
    let gateway = build([GenericRoute::openapi(api)], &link);
    for (path, status) in [("/v2/tasks", 200), ("/internal/tasks", 200), ("/tasks", 200), ("/v1/tasks", 404)]
    {
        assert_eq!(ask(&gateway, "GET", path).await.status, status, "{path}");
    }
    let swagger = r#"{"swagger": "2.0", "basePath": "/old", "paths": {"/tasks": {"get": {}}}}"#;
    let gateway = build([GenericRoute::openapi(OpenApi::from_json(swagger).unwrap())], &link);
    assert_eq!(ask(&gateway, "GET", "/old/tasks").await.status, 200);
}

#[tokio::test]
async fn clients_are_let_in_as_for_inference() {
    let link = Mock::ok();
    let gateway = build([GenericRoute::prefix("/apps")], &link);
    for request in [get("/apps/a"), as_admin(get("/apps/a")), with_key(get("/apps/a"), "wrong")] {
        let answer = whole(&gateway, request).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")));
    }
    assert!(link.seen.lock().unwrap().is_empty());
    assert_eq!(whole(&gateway, as_client(get("/apps/a"))).await.status, 200);
}

#[tokio::test]
async fn they_have_one_label_in_metrics() {
    let link = Mock::ok();
    let gateway = build([GenericRoute::prefix("/apps")], &link);
    for (method, path) in [("GET", "/apps/a"), ("GET", "/apps/b"), ("DELETE", "/apps/b"), ("LOCK", "/apps/b")]
    {
        assert_eq!(ask(&gateway, method, path).await.status, 200);
    }
    let metrics = gateway.metrics_text();
    for (method, count) in [("GET", 2), ("DELETE", 1), ("other", 1)] {
        let line =
            format!(r#"gateway_requests_total{{method="{method}",endpoint="generic",status="200"}} {count}"#);
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn a_runner_without_models_gets_no_inference() {
    let link = Mock::ok();
    let gateway = build([GenericRoute::prefix("/apps")], &link);
    let answer = whole(&gateway, chat(r#"{"model":"m"}"#)).await;
    assert_eq!(answer.error().1.as_deref(), Some("model_not_found"));
    assert!(link.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_draining_gateway_takes_nothing_and_ready_counts_runners_without_models() {
    let link = Mock::ok();
    let gateway = build([GenericRoute::prefix("/apps")], &link);
    assert_eq!(whole(&gateway, get("/readyz")).await.status, 200);
    gateway.shutdown(std::time::Duration::ZERO).await;
    let answer = ask(&gateway, "POST", "/apps/a").await;
    assert_eq!((answer.status, answer.error().1.as_deref()), (503, Some("shutting_down")));
    assert_eq!(whole(&gateway, get("/readyz")).await.status, 503);
}

#[test]
fn routes_that_make_no_sense_are_told_when_the_gateway_is_built() {
    let refuse = |routes: Vec<GenericRoute>| {
        let builder = routes.into_iter().fold(builder(), |builder, route| builder.generic(route));
        match builder.build() {
            Err(BuildError::Generic(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let need = Need { gpus: Some(1.0), ..Need::default() };
    let api = || GenericRoute::openapi(document(&["/tasks/{id}"]));
    let twice = |method: &str, path: &str| InvalidRoute::Twice { method: method.into(), path: path.into() };
    assert_eq!(refuse(vec![api(), api()]), twice("GET", "/tasks/{id}"));
    // Another name for the parameter is no other path.
    let renamed = GenericRoute::openapi(document(&["/tasks/{task}"]));
    assert_eq!(refuse(vec![api(), renamed]), twice("GET", "/tasks/{task}"));
    let prefixes = vec![GenericRoute::prefix("/a"), GenericRoute::prefix("/a/")];
    assert_eq!(refuse(prefixes), twice("any method", "/a/"));
    assert_eq!(
        refuse(vec![api().needs_of("/tasks/7", need)]),
        InvalidRoute::NoSuchPath { path: "/tasks/7".into() }
    );
    let negative = Need { cpus: Some(-1.0), ..Need::default() };
    assert_eq!(
        refuse(vec![api().needs_of("/tasks/{id}", negative)]),
        InvalidRoute::Need { whose: "/tasks/{id}".into() }
    );
    for prefix in ["", "apps", "/apps/{id}", "/apps?x"] {
        let why = refuse(vec![GenericRoute::prefix(prefix)]);
        assert!(matches!(&why, InvalidRoute::Path { path, .. } if path == prefix), "{why}");
    }
    let builder = builder().needs_of_model(ModelId::new("m").unwrap(), Need { gpus: Some(f64::NAN), ..need });
    let why = builder.build().unwrap_err().to_string();
    assert!(why.contains("`m`"), "{why}");
    assert_eq!(Method::from_bytes(b"QUERY").unwrap().as_str(), "QUERY");
}
