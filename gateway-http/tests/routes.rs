//! Every route answers on its own method, and everything else is told in OpenAI's way.

mod common;

use common::*;
use gateway_core::{Model, ModelRoutes, RunnerId, RunnerSpec, RunnerStatus};
use http::Request;
use http_body_util::Full;

#[tokio::test]
async fn unknown_paths_are_404_and_wrong_methods_405_with_allow() {
    let gateway = builder().build().unwrap();
    for path in ["/", "/v1", "/v1/chat", "/v1/chat/completions/", "/metrics", "/admin", "/v1/models/"] {
        let answer = whole(&gateway, get(path)).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.error().0, "invalid_request_error");
    }
    let posts = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/admin/runners/a/load-model"];
    for path in posts {
        let answer = whole(&gateway, as_client(get(path))).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{path}");
        answer.error();
    }
    for path in
        ["/v1/models", "/v1/models/a", "/health", "/readyz", "/v1/metadata", "/admin/runners", "/runners"]
    {
        let answer = whole(&gateway, as_client(post(path, "{}"))).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{path}");
    }
}

#[tokio::test]
async fn all_three_inference_routes_reach_the_runner_with_path_and_query() {
    let link = Mock::ok();
    let gateway = with_runner(&link);
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/embeddings?beta=true&x=%20"] {
        let answer = whole(&gateway, as_client(post(path, r#"{"model":"m"}"#))).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &br#"{"ok":true}"#[..]));
        assert_eq!(link.last().uri, path);
        assert_eq!(link.last().method, "POST");
    }
}

#[tokio::test]
async fn absolute_uris_and_extensions_stay_with_the_gateway() {
    let link = Mock::ok();
    let gateway = with_runner(&link);
    let mut request = chat(r#"{"model":"m"}"#);
    *request.uri_mut() = "https://gateway.example/v1/chat/completions?a=b".parse().unwrap();
    request.extensions_mut().insert(7_u32);
    assert_eq!(whole(&gateway, request).await.status, 200);
    assert_eq!(link.last().uri, "/v1/chat/completions?a=b");
    // But for the word on whose account it is, which this link wants to hear.
    assert_eq!((link.last().extensions, link.last().claim.is_some()), (1, true));
}

#[tokio::test]
async fn request_ids_are_kept_if_they_are_fit_and_made_otherwise() {
    let gateway = builder().build().unwrap();
    let with_id = |id: &[u8]| {
        let id = http::HeaderValue::from_bytes(id).unwrap();
        Request::get("/health").header("x-request-id", id).body(Full::<bytes::Bytes>::default()).unwrap()
    };
    let answer = whole(&gateway, with_id(b"abc-123")).await;
    assert_eq!(answer.header("x-request-id"), Some("abc-123"));
    for unfit in [&b"a b"[..], b"", &[b'x'; 129], b"caf\xc3\xa9"] {
        let answer = whole(&gateway, with_id(unfit)).await;
        assert!(answer.header("x-request-id").unwrap().starts_with("req_"), "{unfit:?}");
    }
    let error = whole(&gateway, get("/nowhere")).await;
    assert!(error.header("x-request-id").unwrap().starts_with("req_"));
}

#[tokio::test]
async fn head_is_get_without_the_content() {
    let gateway = builder().build().unwrap();
    let expected = whole(&gateway, get("/health")).await.body.len().to_string();
    let head = Request::head("/health").body(Full::<bytes::Bytes>::default()).unwrap();
    let answer = whole(&gateway, head).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.header("content-length"), Some(&*expected));
}

#[tokio::test]
async fn health_says_status_and_version() {
    let gateway = builder().build().unwrap();
    let answer = whole(&gateway, get("/health")).await;
    assert_eq!(answer.json(), serde_json::json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}));
}

#[tokio::test]
async fn models_are_merged_with_openai_s_fields_only() {
    let gateway = builder().build().unwrap();
    let mut described = Model::loaded(model("org/b")).with_local_name(model("b.gguf"));
    described.created = Some(1_700_000_000);
    described.owned_by = Some("org".into());
    let status = RunnerStatus { models: vec![described], ..RunnerStatus::serving([]) };
    join_with(&gateway, RunnerSpec::new(RunnerId::new("r1").unwrap()), status, &Mock::ok());
    join(&gateway, "r2", &["a", "org/b"], &Mock::ok());

    let list = whole(&gateway, as_client(get("/v1/models"))).await.json();
    assert_eq!(list["object"], "list");
    let data = list["data"].as_array().unwrap();
    let ids: Vec<_> = data.iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a", "org/b"]);
    assert_eq!(
        data[0],
        serde_json::json!({"id": "a", "object": "model", "created": 0, "owned_by": "unknown"})
    );

    let b =
        serde_json::json!({"id": "org/b", "object": "model", "created": 1_700_000_000, "owned_by": "org"});
    for path in ["/v1/models/org/b", "/v1/models/org%2Fb", "/v1/models/b.gguf"] {
        assert_eq!(whole(&gateway, as_client(get(path))).await.json(), b, "{path}");
    }
    for path in ["/v1/models/org", "/v1/models/%ff", "/v1/models/nope"] {
        let answer = whole(&gateway, as_client(get(path))).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.error().1.as_deref(), Some("model_not_found"));
    }
}

#[tokio::test]
async fn aliases_are_models_and_classes_are_not() {
    let routes = ModelRoutes::builder()
        .alias("z-gpt", "org/b")
        .alias("hides", "org/b")
        .alias("nobody-has-it", "absent")
        .alias("falls-back", "absent-too")
        .fallback("absent-too", ["a"])
        .class("fast", ["a"])
        .build()
        .unwrap();
    let gateway = builder().routes(routes).build().unwrap();
    let mut described = Model::loaded(model("org/b"));
    described.owned_by = Some("org".into());
    let status = RunnerStatus { models: vec![described], ..RunnerStatus::serving([]) };
    join_with(&gateway, RunnerSpec::new(RunnerId::new("r1").unwrap()), status, &Mock::ok());
    join(&gateway, "r2", &["a", "hides"], &Mock::ok());

    let list = whole(&gateway, as_client(get("/v1/models"))).await.json();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(ids, ["a", "falls-back", "hides", "org/b", "z-gpt"]);
    for id in ["z-gpt", "hides"] {
        let alias = whole(&gateway, as_client(get(&format!("/v1/models/{id}")))).await.json();
        assert_eq!((alias["id"].as_str(), alias["owned_by"].as_str()), (Some(id), Some("org")));
    }
    for id in ["nobody-has-it", "class:fast", "absent-too"] {
        assert_eq!(whole(&gateway, as_client(get(&format!("/v1/models/{id}")))).await.status, 404, "{id}");
    }
}
