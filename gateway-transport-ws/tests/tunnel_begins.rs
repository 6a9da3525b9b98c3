//! HTTP/2 begins when it is needed: until then a runner costs the gateway little.

mod support;

use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use serde_json::json;
use support::{Gateway, heartbeat, post, register, status};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test(start_paused = true)]
async fn http2_begins_with_the_first_request() {
    let gateway = Gateway::default().await;
    let mut message = register("r1");
    message["tunnel"] = json!({"version": 1, "max_streams": 8});
    let mut client = gateway.join(message).await;
    // The runner's settings wait until then.
    client.socket.send(Message::binary(vec![0, 0, 0, 4, 0, 0, 0, 0, 0])).await.unwrap();
    client.send(heartbeat("heartbeat", status(&["b"]))).await;
    gateway.until(|fleet| fleet.model("b").is_some()).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(client.socket.next().now_or_never().is_none());
    let link = gateway.runner("r1").unwrap().link().clone();
    let _requests: Vec<_> = (0..2)
        .map(|_| {
            let link = link.clone();
            tokio::spawn(async move { link.send(post("{}")).await })
        })
        .collect();
    let mut bytes = Vec::new();
    // The preface once, the gateway's settings, that ours were seen, and both requests.
    while bytes.windows(2).filter(|two| two == b"{}").count() < 2 {
        let Message::Binary(more) = client.socket.next().await.unwrap().unwrap() else { continue };
        bytes.extend_from_slice(&more);
    }
    assert!(bytes.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    assert_eq!(bytes.windows(4).filter(|four| four == b"PRI ").count(), 1);
    assert!(bytes.windows(9).any(|nine| nine == [0, 0, 0, 4, 1, 0, 0, 0, 0]));
}
