//! What it costs a request to be told of: without sinks, with one that does nothing, with one that looks for tokens
//! as well, and with the file.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gateway_benches::model;
use gateway_core::{
    InMemoryRegistry, LinkBody, LinkDescription, LinkError, LinkRequest, LinkResponse, Registry, RunnerId,
    RunnerLink, RunnerSpec, RunnerStatus,
};
use gateway_http::{Gateway, RequestRecord, RequestSink, SqliteLog};
use http_body_util::{BodyExt, Full};
use tower_service::Service;

const BODY: &str = r#"{"model":"bench-model","messages":[{"role":"user","content":"Hello, how are you?"}]}"#;

/// Answers at once with the same bytes.
struct Fixed(Bytes);

#[async_trait]
impl RunnerLink for Fixed {
    fn describe(&self) -> LinkDescription {
        LinkDescription { transport: "bench", address: None }
    }

    async fn send(&self, _: LinkRequest) -> Result<LinkResponse, LinkError> {
        Ok(http::Response::new(LinkBody::full(self.0.clone())))
    }
}

struct Nothing {
    tokens: bool,
}

impl RequestSink for Nothing {
    fn record(&self, _: &RequestRecord<'_>) {}

    fn wants_tokens(&self) -> bool {
        self.tokens
    }
}

fn gateway(answer: &Bytes, sink: Option<Arc<dyn RequestSink>>) -> Gateway {
    let registry = Arc::new(InMemoryRegistry::new());
    let spec = RunnerSpec::new(RunnerId::new("runner").expect("a valid id"));
    registry.join(spec, RunnerStatus::serving([model()]), Arc::new(Fixed(answer.clone())));
    let builder = Gateway::builder().registry(registry).client_tokens(["bench-token"]);
    sink.into_iter().fold(builder, |builder, sink| builder.request_sink(sink)).build().expect("a gateway")
}

fn request_log(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let folder = std::env::temp_dir().join(format!("gateway-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let usage = r#"],"usage":{"prompt_tokens":12,"completion_tokens":345,"total_tokens":357}}"#;
    for (size, answer) in [("short", 200), ("1 MiB", 1 << 20)] {
        let numbers = "0.0123456789,".repeat(answer / 13);
        let answer = Bytes::from(format!(r#"{{"data":[{numbers}0{usage}"#));
        let log = Arc::new(SqliteLog::builder(folder.join("requests.db")).open().expect("a log"));
        let mut group = criterion.benchmark_group(format!("request_log/{size}"));
        group.throughput(Throughput::Bytes(answer.len() as u64));
        let sinks: [(&str, Option<Arc<dyn RequestSink>>); 4] = [
            ("none", None),
            ("sink", Some(Arc::new(Nothing { tokens: false }))),
            ("tokens", Some(Arc::new(Nothing { tokens: true }))),
            ("file", Some(log.clone())),
        ];
        for (name, sink) in sinks {
            let gateway = gateway(&answer, sink);
            group.bench_function(name, |bencher| {
                bencher.to_async(&runtime).iter(|| {
                    let mut gateway = gateway.clone();
                    async move {
                        let request = http::Request::post("/v1/chat/completions")
                            .header("authorization", "Bearer bench-token")
                            .body(Full::new(Bytes::from_static(BODY.as_bytes())))
                            .expect("a valid request");
                        let Ok(response) = gateway.call(request).await;
                        let mut body = response.into_body();
                        while body.frame().await.is_some() {}
                    }
                });
            });
        }
        group.finish();
        println!("{} records were dropped", log.dropped());
    }
    std::fs::remove_dir_all(&folder).expect("an own folder");
}

criterion_group!(benches, request_log);
criterion_main!(benches);
