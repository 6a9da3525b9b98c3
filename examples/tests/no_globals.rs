//! Two whole gateways, with every kind of source, beside a host that owns the process: its tracing
//! subscriber and its crypto provider are still its own afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gateway_http::Gateway;
use gateway_testkit::{MockEngine, Script};
use gateway_transport_http::HttpRunners;
use gateway_transport_ws::WsRunners;
use tower_service::Service;

/// Counts events, so that one can see whether it is still the process's subscriber.
struct Counting(Arc<AtomicUsize>);

impl tracing::Subscriber for Counting {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

fn gateway(url: String, key: &str) -> Gateway {
    Gateway::builder()
        .runners(WsRunners::builder().auth_token("runners").build())
        .runners(HttpRunners::fixed([url]).models(["m"]))
        .client_tokens([key])
        .build()
        .expect("a gateway")
}

#[tokio::test]
async fn the_host_still_owns_its_process() {
    let engine = MockEngine::new(|_| Script::text("{}"));
    let server = engine.serve_http().await.expect("a free port");
    let gateways = [gateway(server.url(), "one"), gateway(server.url(), "two")];

    // Each of these can be done once in a process: they fail if a gateway was there before.
    let events = Arc::new(AtomicUsize::new(0));
    tracing::subscriber::set_global_default(Counting(events.clone())).expect("no subscriber is set");
    assert!(rustls::crypto::CryptoProvider::get_default().is_none(), "no crypto provider is set");
    rustls::crypto::ring::default_provider().install_default().expect("no crypto provider is set");

    for (gateway, key) in gateways.iter().zip(["one", "two"]) {
        let registry = gateway.dispatcher().registry().clone();
        let mut changes = registry.events();
        while !registry.fleet().can_serve() {
            changes.next().await.expect("the registry lives");
        }
        let request = http::Request::post("/v1/chat/completions")
            .header("authorization", format!("Bearer {key}"))
            .body(String::from(r#"{"model":"m"}"#))
            .expect("a valid request");
        let Ok(answer) = gateway.clone().call(request).await;
        assert_eq!(answer.status(), 200);
        gateway_testkit::text(answer).await.expect("a whole answer");
    }
    assert!(events.load(Ordering::Relaxed) >= 2, "the gateways log to the host's subscriber");
    for gateway in &gateways {
        assert!(gateway.shutdown(Duration::from_secs(5)).await.is_clean());
    }
    assert!(rustls::crypto::CryptoProvider::get_default().is_some());
}
