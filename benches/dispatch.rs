//! What a whole request costs without any transport: the dispatcher alone, and the northbound service with
//! authentication, parsing, metrics and headers around it.

use std::sync::Arc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gateway_benches::{fleet, model};
use gateway_core::{
    Claim, Dispatch, Dispatcher, Permit, RequestBody, RequestId, Requirements, RoundRobin, Terms,
};
use gateway_http::Gateway;
use http_body_util::{BodyExt, Full};
use tower_service::Service;

const BODY: &str = r#"{"model":"bench-model","messages":[{"role":"user","content":"Hello, how are you?"}]}"#;

fn dispatch(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut group = criterion.benchmark_group("whole");
    for runners in [10, 1_000, 10_000] {
        let dispatcher =
            Dispatcher::builder(fleet(runners)).balancer(Arc::new(RoundRobin::default())).build();
        group.bench_function(BenchmarkId::new("dispatcher", runners), |bencher| {
            bencher.to_async(&runtime).iter(|| async {
                let mut request = http::Request::new(RequestBody::from(BODY));
                *request.method_mut() = http::Method::POST;
                *request.uri_mut() = http::Uri::from_static("/v1/chat/completions");
                let (id, requirements) = (RequestId::random(), Requirements::model(model()));
                let call = Dispatch {
                    id,
                    request,
                    requirements,
                    claim: Claim::default(),
                    permit: Permit::free(),
                    terms: Terms::default(),
                };
                let answer = dispatcher.dispatch(call).await.expect("an answer");
                answer.response.into_body().collect().await.expect("a whole answer")
            });
        });

        let gateway = runtime.block_on(async {
            Gateway::builder()
                .registry(fleet(runners))
                .strategy(RoundRobin::default())
                .client_tokens(["bench-token"])
                .build()
                .expect("a gateway")
        });
        group.bench_function(BenchmarkId::new("gateway", runners), |bencher| {
            bencher.to_async(&runtime).iter(|| {
                let mut gateway = gateway.clone();
                async move {
                    let request = http::Request::post("/v1/chat/completions")
                        .header("authorization", "Bearer bench-token")
                        .header("content-type", "application/json")
                        .body(Full::new(Bytes::from_static(BODY.as_bytes())))
                        .expect("a valid request");
                    let Ok(response) = gateway.call(request).await;
                    assert_eq!(response.status(), 200);
                    response.into_body().collect().await.expect("a whole answer")
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, dispatch);
criterion_main!(benches);
