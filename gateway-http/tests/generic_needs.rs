//! What a request needs, from wherever it is said, decides which runner gets it.

mod common;
mod generic_support;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use gateway_core::{
    Health, ModelId, QueuePolicy, ResourceReport, Resources, RunnerId, RunnerSpec, RunnerStatus,
};
use gateway_http::{Gateway, GatewayBuilder, GenericRoute, Need};
use generic_support::*;
use http::Request;

const SMALL: Resources = Resources { cpus: 1.0, gpus: 0.0, memory_gb: 1.0 };
const LARGE: Resources = Resources { cpus: 16.0, gpus: 2.0, memory_gb: 64.0 };

fn spec(id: &str) -> RunnerSpec {
    RunnerSpec::new(RunnerId::new(id).unwrap())
}

/// A gateway with three runners: `silent` does not say what it has, `small` and `large` do.
fn fleet(builder: GatewayBuilder) -> Gateway {
    let gateway = builder.queue(QueuePolicy::OFF).build().unwrap();
    add_with(&gateway, spec("silent"), None, Mock::ok());
    add_with(&gateway, spec("small"), Some(SMALL), Mock::ok());
    add_with(&gateway, spec("large").label("pool", "big"), Some(LARGE), Mock::ok());
    gateway
}

/// Who answers, of many times, sorted; or why nobody does.
async fn who<B>(gateway: &Gateway, request: impl Fn() -> Request<B>) -> Result<Vec<String>, u16>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<gateway_core::BoxError>,
{
    let mut names = Vec::new();
    for _ in 0..40 {
        let answer = whole(gateway, request()).await;
        if answer.status != 200 {
            return Err(answer.status);
        }
        names.push(answer.header("x-backend-used").unwrap().to_owned());
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

fn task(path: &str, headers: &[(&str, &str)]) -> Request<http_body_util::Full<bytes::Bytes>> {
    let mut request = as_client(post(path, "x"));
    for (name, value) in headers {
        request.headers_mut().insert(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    request
}

const PATHS: &str = r#"{
    "/plain": {"post": {}},
    "/gpu/{id}": {"post": {"x-neutrino-resources": {"num_gpus": 1}}},
    "/huge": {"post": {"x-neutrino-resources": {"num_gpus": 3.0}}},
    "/own": {"post": {"x-neutrino-resources": {"num_gpus": 3}, "x-gateway": {"resources": {"cpus": 4}}}},
    "/pool": {"post": {"x-gateway": {"resources": {}, "labels": {"pool": "big"}}}},
    "/none": {"post": {"x-gateway": {"resources": {}}}}
}"#;

#[tokio::test]
async fn the_document_says_it() {
    let gateway = fleet(with_route(GenericRoute::openapi(parse(PATHS))));
    // The document speaks of resources, so what says nothing needs a core and a gigabyte.
    for (path, expected) in [
        ("/plain", Ok(vec!["large", "small"])),
        ("/gpu/7", Ok(vec!["large"])),
        ("/huge", Err(503)),
        ("/own", Ok(vec!["large"])),
        ("/pool", Ok(vec!["large"])),
        ("/none", Ok(vec!["large", "small"])),
    ] {
        let names = who(&gateway, || task(path, &[])).await;
        assert_eq!(names, expected.map(|names| names.into_iter().map(str::to_owned).collect()), "{path}");
    }
}

#[tokio::test]
async fn a_document_that_does_not_speak_of_it_asks_for_nothing() {
    let gateway = fleet(with_route(GenericRoute::openapi(document(&["/plain"]))));
    assert_eq!(who(&gateway, || task("/plain", &[])).await.unwrap(), ["large", "silent", "small"]);
}

#[tokio::test]
async fn nobody_free_is_503_and_says_when_to_come_back() {
    let gateway = fleet(with_route(GenericRoute::openapi(parse(PATHS))));
    let answer = whole(&gateway, task("/huge", &[])).await;
    assert_eq!((answer.status, answer.error().1.as_deref()), (503, Some("no_runner_available")));
    assert!(answer.header("retry-after").is_some());
    let message = answer.json()["error"]["message"].to_string();
    assert!(message.contains("such requests") && !message.contains("``"), "{message}");
}

#[tokio::test]
async fn configuration_goes_before_the_document_and_headers_before_both() {
    let gpu = Need { gpus: Some(1.0), ..Need::default() };
    let none = Need { gpus: Some(0.0), ..Need::default() };
    let route = GenericRoute::openapi(parse(PATHS)).needs_of("/plain", gpu).needs_of("/gpu/{id}", none);
    let configured = fleet(with_route(route.clone()));
    assert_eq!(who(&configured, || task("/plain", &[])).await.unwrap(), ["large"]);
    assert_eq!(who(&configured, || task("/gpu/7", &[])).await.unwrap(), ["large", "small"]);
    // Nobody said that clients may say it.
    let asks = [("x-gateway-gpus", "0"), ("x-gateway-cpus", "0.5")];
    assert_eq!(who(&configured, || task("/plain", &asks)).await.unwrap(), ["large"]);

    let headers = fleet(with_route(route).needs_from_headers(true));
    assert_eq!(who(&headers, || task("/plain", &asks)).await.unwrap(), ["large", "small"]);
    assert_eq!(who(&headers, || task("/plain", &[])).await.unwrap(), ["large"]);
    let greedy = [("x-gateway-memory-gb", "65")];
    assert_eq!(who(&headers, || task("/plain", &greedy)).await, Err(503));
    for wrong in ["-1", "many", "inf", ""] {
        let answer = whole(&headers, task("/plain", &[("x-gateway-cpus", wrong)])).await;
        assert_eq!(answer.status, 400);
        assert!(answer.json()["error"]["message"].to_string().contains("x-gateway-cpus"));
    }
}

#[tokio::test]
async fn a_route_says_what_its_requests_need() {
    let need = Need { memory_gb: Some(2.0), ..Need::default() };
    let gateway = fleet(
        with_route(GenericRoute::prefix("/apps").needs(need))
            .generic(GenericRoute::prefix("/big").label("pool", "big"))
            .generic(GenericRoute::prefix("/nobody").label("pool", "missing"))
            .generic(GenericRoute::prefix("/any")),
    );
    assert_eq!(who(&gateway, || task("/apps/x", &[])).await.unwrap(), ["large"]);
    assert_eq!(who(&gateway, || task("/big", &[])).await.unwrap(), ["large"]);
    assert_eq!(who(&gateway, || task("/any", &[])).await.unwrap(), ["large", "silent", "small"]);
    assert_eq!(who(&gateway, || task("/nobody", &[])).await, Err(503));
}

#[tokio::test]
async fn a_model_says_what_its_requests_need_be_they_inference_or_not() {
    let model = || ModelId::new("m").unwrap();
    let gpu = Need { gpus: Some(1.0), ..Need::default() };
    let builder = with_route(GenericRoute::prefix("/audio").model(model()));
    let gateway = fleet(builder.needs_of_model(model(), gpu).needs_from_headers(true));
    for (id, free) in [("m-small", SMALL), ("m-large", LARGE)] {
        let resources =
            ResourceReport { total: Some(free), available: Some(free), ..ResourceReport::default() };
        let status = RunnerStatus { resources, health: Health::Healthy, ..RunnerStatus::serving([model()]) };
        gateway.dispatcher().registry().join(spec(id), status, Mock::ok());
    }
    assert_eq!(who(&gateway, || task("/audio/speech", &[])).await.unwrap(), ["m-large"]);
    assert_eq!(who(&gateway, || chat(r#"{"model":"m"}"#)).await.unwrap(), ["m-large"]);
    let asks = || {
        let mut request = chat(r#"{"model":"m"}"#);
        request.headers_mut().insert("x-gateway-gpus", "0".parse().unwrap());
        request
    };
    assert_eq!(who(&gateway, asks).await.unwrap(), ["m-large", "m-small"]);
}

#[tokio::test(start_paused = true)]
async fn slots_of_runners_without_models_are_waited_for() {
    let (link, mut calls) = ByHand::new();
    let gateway = with_route(GenericRoute::prefix("/apps")).build().unwrap();
    add_with(&gateway, spec("one").slots(1), None, link);
    let ask = |path: &'static str| {
        let gateway = gateway.clone();
        tokio::spawn(async move { whole(&gateway, task(path, &[])).await })
    };
    let first = ask("/apps/1");
    let held = calls.recv().await.unwrap();
    let second = ask("/apps/2");
    while gateway.dispatcher().queue_depth() == 0 {
        tokio::task::yield_now().await;
    }
    held.drop_and_answer(Ok(json(200, "{}")));
    assert_eq!(first.await.unwrap().status, 200);
    let next = calls.recv().await.unwrap();
    assert_eq!(next.request.uri().path(), "/apps/2");
    // Full, and nobody gives way: the third is told so, as a 503.
    let third = ask("/apps/3");
    tokio::time::sleep(Duration::from_secs(31)).await;
    let answer = third.await.unwrap();
    assert_eq!((answer.status, answer.error().1.as_deref()), (503, Some("queue_timeout")));
    next.drop_and_answer(Ok(json(200, "{}")));
    assert_eq!(second.await.unwrap().status, 200);
}

#[tokio::test]
async fn without_a_queue_full_is_503_with_a_time_to_come_back() {
    let (link, mut calls) = ByHand::new();
    let gateway = with_route(GenericRoute::prefix("/apps")).queue(QueuePolicy::OFF).build().unwrap();
    add_with(&gateway, spec("one").slots(1), None, link);
    let _first = tokio::spawn({
        let gateway = gateway.clone();
        async move { whole(&gateway, task("/apps/1", &[])).await }
    });
    let _held = calls.recv().await.unwrap();
    let answer = whole(&gateway, task("/apps/2", &[])).await;
    assert_eq!((answer.status, answer.error().1.as_deref()), (503, Some("overloaded")));
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn admission_sees_what_is_needed() {
    use gateway_core::{Permit, RequestId, Requirements};
    use gateway_http::{Admission, Decision, Identity, Refused};
    struct NoGpus;
    impl Admission for NoGpus {
        fn admit<'a>(
            &'a self,
            _: &'a Identity,
            requirements: &'a Requirements,
            _: &'a RequestId,
        ) -> Decision<'a, Result<Permit, Refused>> {
            let gpus = requirements.resources.map_or(0.0, |needs| needs.gpus);
            if gpus > 0.0 { Err(Refused::forbidden("No accelerators for you.")) } else { Ok(Permit::free()) }
                .into()
        }
    }
    let gateway = fleet(with_route(GenericRoute::openapi(parse(PATHS))).admission(NoGpus));
    assert_eq!(whole(&gateway, task("/gpu/7", &[])).await.status, 403);
    assert_eq!(whole(&gateway, task("/plain", &[])).await.status, 200);
    let _: Arc<Mock> = Mock::ok();
}
