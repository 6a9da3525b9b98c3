//! What a runner's conduct has earned it is told to admins and in metrics, and counted for clients.

mod common;

use std::time::Duration;

use common::*;
use gateway_core::{BreakerPolicy, HealthPolicy, LinkError};
use gateway_http::Gateway;

fn gateway(health: HealthPolicy) -> Gateway {
    let gateway = builder().health(health).build().unwrap();
    join(&gateway, "r1", &["m"], &Mock::new(|_| async { Err(LinkError::lost("gone")) }));
    gateway
}

async fn fail(gateway: &Gateway, times: usize) {
    for _ in 0..times {
        assert_eq!(whole(gateway, chat(r#"{"model":"m"}"#)).await.status, 502);
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_is_told_to_everybody_in_the_words_that_are_for_them() {
    let breaker = BreakerPolicy { consecutive_faults: 2, ..BreakerPolicy::DEFAULT };
    let gateway = gateway(HealthPolicy { breaker: Some(breaker), ..HealthPolicy::DEFAULT });
    fail(&gateway, 2).await;

    let answer = whole(&gateway, chat(r#"{"model":"m"}"#)).await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some_and(|wait| wait.parse::<u64>().unwrap() <= 7), "{answer:?}");
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("1 recovering from failures") && !message.contains("r1"), "{message}");

    let explained = whole(&gateway, as_admin(post("/admin/explain", r#"{"model":"m"}"#))).await.json();
    let runner = &explained["runners"][0];
    assert_eq!(runner["verdict"], "circuit_open");
    assert_eq!(
        (runner["standing"]["standing"].as_str(), runner["standing"]["breaker"].as_str()),
        (Some("open"), Some("open"))
    );
    let lasts = runner["standing"]["lasts_ms"].as_u64().unwrap();
    assert!((4_000..=5_500).contains(&lasts), "{lasts}");
    let list = whole(&gateway, as_admin(get("/admin/runners"))).await.json();
    assert_eq!(list["runners"][0]["standing"], "open");
    let line = r#"gateway_runner_standing{runner="r1",standing="open"} 1"#;
    assert!(gateway.metrics_text().contains(line));

    tokio::time::advance(Duration::from_secs(6)).await;
    let line = r#"gateway_runner_standing{runner="r1",standing="half_open"} 1"#;
    assert!(gateway.metrics_text().contains(line), "{}", gateway.metrics_text());
}

#[tokio::test(start_paused = true)]
async fn it_can_be_switched_off() {
    let gateway = gateway(HealthPolicy::off());
    fail(&gateway, 30).await;
    assert!(gateway.metrics_text().contains(r#"standing="good"} 1"#));
}
