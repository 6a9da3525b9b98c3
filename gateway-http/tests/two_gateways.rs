//! Two gateways in one process do not know each other, and install nothing.

mod common;

use std::time::Duration;

use common::*;
use gateway_http::Gateway;

#[tokio::test]
async fn runners_keys_metrics_and_shutdown_are_each_gateway_s_own() {
    let (one, two) = (Mock::ok(), Mock::ok());
    let first = Gateway::builder().client_tokens(["first"]).build().unwrap();
    let second = Gateway::builder().client_tokens(["second"]).build().unwrap();
    join(&first, "r1", &["m"], &one);
    join(&second, "r1", &["m"], &two);
    let ask = |key: &str| with_key(post("/v1/chat/completions", r#"{"model":"m"}"#), key);

    assert_eq!(whole(&first, ask("first")).await.status, 200);
    assert_eq!(whole(&first, ask("second")).await.status, 401);
    assert_eq!((one.seen.lock().unwrap().len(), two.seen.lock().unwrap().len()), (1, 0));
    let line = r#"inference_requests_total{model="m",type="chat"} 1"#;
    assert!(first.metrics_text().contains(line) && !second.metrics_text().contains(line));

    first.shutdown(Duration::from_secs(1)).await;
    assert_eq!(whole(&first, ask("first")).await.status, 503);
    assert_eq!(whole(&second, ask("second")).await.status, 200);
    assert!(one.closed.is_cancelled() && !two.closed.is_cancelled());
}

#[tokio::test]
async fn nothing_is_installed_in_the_process() {
    let gateway = with_runner(&Mock::ok());
    assert_eq!(whole(&gateway, chat(r#"{"model":"m"}"#)).await.status, 200);
    // Either of these would fail had the gateway set its own.
    tracing::subscriber::set_global_default(tracing::subscriber::NoSubscriber::new()).unwrap();
    gateway.shutdown(Duration::ZERO).await;
}
