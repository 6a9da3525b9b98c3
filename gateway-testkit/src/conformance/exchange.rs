//! What goes in comes out.

use bytes::Bytes;
use gateway_core::RequestBody;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};

use super::{PATIENCE, Subject, post, read_all, until};
use crate::engine::MockEngine;
use crate::script::Script;

pub(super) async fn request_is_untouched(subject: &dyn Subject) {
    let engine = MockEngine::new(|_| Script::text("ok"));
    let connected = subject.connect(engine.clone()).await;
    let body: &[u8] = br#"{"model":"m", "unknown" : [1,2.50,"\u00e9"]}"#;
    let mut request = post("/v1/chat/completions?a=b%20c&d", Bytes::from_static(body));
    request.headers_mut().append("x-twice", "1".parse().expect("valid"));
    request.headers_mut().append("x-twice", "2".parse().expect("valid"));
    let response = connected.link.send(request).await.expect("answer");
    assert_eq!(read_all(response.into_body()).await.expect("body"), b"ok");
    let seen = engine.last_seen().expect("seen");
    assert_eq!(seen.head.method, http::Method::POST);
    assert_eq!(seen.head.uri.path_and_query().expect("path").as_str(), "/v1/chat/completions?a=b%20c&d");
    assert_eq!(seen.body, body);
    assert_eq!(seen.head.headers[CONTENT_TYPE], "application/json");
    let twice: Vec<_> = seen.head.headers.get_all("x-twice").iter().collect();
    assert_eq!(twice, ["1", "2"]);
}

pub(super) async fn answer_is_untouched(subject: &dyn Subject) {
    for status in [200, 201, 400, 404, 429, 500, 503] {
        let engine = MockEngine::new(move |_| {
            let script = Script::status(status, "words");
            script.header(HeaderName::from_static("x-custom"), "1").header(CONTENT_TYPE, "text/plain")
        });
        let connected = subject.connect(engine).await;
        let response = connected.link.send(post("/x", "{}")).await.expect("any status is an answer");
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.headers()["x-custom"], "1");
        assert_eq!(response.headers()[CONTENT_TYPE], "text/plain");
        for hop in ["connection", "keep-alive", "transfer-encoding"] {
            assert!(!response.headers().contains_key(hop), "{hop} is about one connection only");
        }
        assert_eq!(read_all(response.into_body()).await.expect("body"), b"words");
    }
}

pub(super) async fn bodies_of_every_size(subject: &dyn Subject) {
    let engine = MockEngine::new(|seen| Script::text(seen.body.clone()));
    let connected = subject.connect(engine).await;
    for size in [0, 1, 1000, 16 * 1024, 65_536, 3_000_001] {
        let body: Bytes = (0..size).map(|at: usize| (at % 251) as u8).collect();
        let response = connected.link.send(post("/echo", body.clone())).await.expect("answer");
        if let Some(length) = response.headers().get(CONTENT_LENGTH) {
            assert_eq!(length.to_str().expect("text"), size.to_string());
        }
        let back = read_all(response.into_body()).await.expect("body");
        assert!(back == body, "{size} bytes did not come back as they went");
    }
}

pub(super) async fn renamed_model(subject: &dyn Subject) {
    use gateway_core::{Dispatcher, InMemoryRegistry, Model, ModelId, Registry, RunnerId, RunnerSpec};
    let engine = MockEngine::new(|seen| Script::text(seen.body.clone()));
    let connected = subject.connect(engine.clone()).await;
    let name = |name| ModelId::new(name).expect("a valid name");
    let registry = std::sync::Arc::new(InMemoryRegistry::new());
    let mut status = gateway_core::RunnerStatus::serving([]);
    status.models.push(Model::loaded(name("public")).with_local_name(name("local \"q\"")));
    let spec = RunnerSpec::new(RunnerId::new("r").expect("a valid id"));
    registry.join(spec, status, connected.link.clone());
    let dispatcher = Dispatcher::builder(registry).build();
    let mut call = crate::request(&name("public"), "");
    *call.request.body_mut() =
        RequestBody::from(r#"{"a":"public","model": "public" , "b":1}"#).with_model_at(23..31);
    let answer = dispatcher.dispatch(call).await.expect("answer");
    let text = crate::text(answer.response).await.expect("body");
    assert_eq!(text, r#"{"a":"public","model": "local \"q\"" , "b":1}"#);
    let seen = engine.last_seen().expect("seen");
    if let Some(length) = seen.head.headers.get(CONTENT_LENGTH) {
        assert_eq!(length.to_str().expect("text"), text.len().to_string());
    }
}

pub(super) async fn no_body(subject: &dyn Subject) {
    let engine = MockEngine::new(|seen| match seen.head.uri.path() {
        "/nothing" => Script::status(204, ""),
        _ => Script::text(""),
    });
    let connected = subject.connect(engine).await;
    for path in ["/nothing", "/empty", "/nothing"] {
        let request = http::Request::get(path).body(RequestBody::empty()).expect("valid");
        let response = connected.link.send(request).await.expect("answer");
        assert!(read_all(response.into_body()).await.expect("body").is_empty());
    }
}

pub(super) async fn many_in_turn(subject: &dyn Subject) {
    let engine = MockEngine::new(|_| Script::chunks(["a", "b"]));
    let connected = subject.connect(engine.clone()).await;
    for turn in 0..300 {
        let response = connected.link.send(post("/x", "{}")).await;
        let response = response.unwrap_or_else(|error| panic!("request {turn}: {error}"));
        assert_eq!(read_all(response.into_body()).await.expect("body"), b"ab");
    }
    until(&engine, PATIENCE, "all finish", |counts| counts.finished == 300).await;
}

pub(super) async fn many_at_once(subject: &dyn Subject) {
    let engine = MockEngine::new(|seen| Script::text(seen.body.clone()));
    let connected = subject.connect(engine.clone()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..64 {
        let link = connected.link.clone();
        tasks.spawn(async move {
            let body = format!("{number}").repeat(1000);
            let response = link.send(post("/x", body.clone())).await.expect("answer");
            assert_eq!(read_all(response.into_body()).await.expect("body"), body.as_bytes());
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("every one is answered with its own");
    }
}
