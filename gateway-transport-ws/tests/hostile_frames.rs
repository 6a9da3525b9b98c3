//! Peers that are broken or mean no good, at the acceptor's door: before their registration and after it, with sound
//! frames of anything and with bytes that are no frames. Only their own connection suffers.

mod hostile_support;
mod support;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use gateway_core::RunnerKey;
use gateway_testkit::{MockEngine, Script};
use hostile_support::{
    Harm, bytes, count_panics, each, harm, harmed, http2, in_pieces, json, name, no_panics,
};
use http_body_util::BodyExt;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;
use support::{Client, Gateway, TunnelRunner, post, register, soon};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

/// What a peer does.
#[derive(Debug, Clone)]
enum Act {
    Text(Vec<u8>),
    /// The registration, harmed.
    Register(Vec<Harm>),
    Binary(Vec<u8>),
    /// HTTP/2, or what looks like it, in frames that are cut anywhere.
    Tunnel(Vec<u8>, Vec<Index>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// Not through a WebSocket at all.
    Raw(Vec<u8>),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => bytes(512).prop_map(Act::Text),
        2 => json().prop_map(|json| Act::Text(json.into_bytes())),
        3 => (kind(), prop::collection::vec((name(), json()), 0..6)).prop_map(|(kind, members)| {
            let members: Vec<_> = members.iter().map(|(name, value)| format!(",{name:?}:{value}")).collect();
            Act::Text(format!(r#"{{"type":{kind:?}{}}}"#, members.concat()).into_bytes())
        }),
        3 => prop::collection::vec(harm(), 0..5).prop_map(Act::Register),
        2 => bytes(512).prop_map(Act::Binary),
        2 => (http2(), prop::collection::vec(any::<Index>(), 0..4)).prop_map(|(bytes, cuts)| Act::Tunnel(bytes, cuts)),
        1 => bytes(126).prop_map(Act::Ping),
        1 => bytes(126).prop_map(Act::Pong),
        2 => bytes(64).prop_map(Act::Raw),
        1 => websocket_frame().prop_map(Act::Raw),
    ]
}

fn kind() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "register",
        "registration",
        "heartbeat",
        "status_update",
        "command_response",
        "register_ack",
        "ping",
        "error",
        "x",
    ])
}

/// A frame of a WebSocket whose head is anything: kinds that are reserved, no mask, lengths that are lies.
fn websocket_frame() -> impl Strategy<Value = Vec<u8>> {
    (any::<u8>(), any::<u8>(), prop::array::uniform8(any::<u8>()), bytes(200)).prop_map(
        |(first, second, length, rest)| {
            let length: &[u8] = match second & 0x7f {
                126 => &length[..2],
                127 => &length,
                _ => &[],
            };
            [&[first, second], length, &rest].concat()
        },
    )
}

impl Act {
    /// Does it; whether the connection still takes anything.
    async fn perform(&self, client: &mut Client, id: &str) -> bool {
        let text = |bytes: &[u8]| vec![Message::text(String::from_utf8_lossy(bytes).into_owned())];
        let messages = match self {
            Self::Text(bytes) => text(bytes),
            Self::Register(harms) => text(&harmed(&register(id).to_string(), harms)),
            Self::Binary(bytes) => vec![Message::binary(bytes.clone())],
            Self::Tunnel(bytes, cuts) => in_pieces(bytes, cuts).into_iter().map(Message::binary).collect(),
            Self::Ping(bytes) => vec![Message::Ping(bytes[..bytes.len().min(125)].to_vec().into())],
            Self::Pong(bytes) => vec![Message::Pong(bytes[..bytes.len().min(125)].to_vec().into())],
            Self::Raw(bytes) => return client.socket.get_mut().write_all(bytes).await.is_ok(),
        };
        for message in messages {
            if client.socket.send(message).await.is_err() {
                return false;
            }
        }
        true
    }
}

/// A gateway with a runner that minds its own business, for as many bad peers as come.
struct Neighbourhood {
    gateway: Gateway,
    good: TunnelRunner,
    key: RunnerKey,
}

impl Neighbourhood {
    async fn new() -> Self {
        count_panics();
        let gateway = Gateway::default().await;
        let engine = MockEngine::new(|_| Script::chunks(["fi", "ne"]));
        let good = TunnelRunner::start(&gateway, "good", 8, engine.link()).await;
        let key = gateway.runner("good").unwrap().key().clone();
        Self { gateway, good, key }
    }

    /// The good runner is who it was and serves.
    async fn is_well(&self) {
        let runner = self.gateway.runner("good").expect("the good runner is gone");
        assert_eq!(runner.key(), &self.key, "it had to register again");
        let answer = soon(runner.link().send(post("{}"))).await.unwrap();
        assert_eq!(soon(answer.into_body().collect()).await.unwrap().to_bytes(), "fine");
        assert!(!self.good.tasks.is_empty());
        no_panics();
    }

    /// The bad peer has gone, and left nothing behind.
    async fn is_alone(&self) {
        soon(self.gateway.until(|fleet| fleet.runners().len() == 1)).await;
    }
}

/// What a peer hears before the connection ends: the code of an error, or the reason of a close frame.
async fn last_words(client: &mut Client) -> Option<String> {
    let mut words = None;
    loop {
        match soon(client.socket.next()).await {
            Some(Ok(Message::Text(text))) => {
                let said: serde_json::Value = serde_json::from_str(&text).expect("the gateway speaks JSON");
                if said["type"] == "error" {
                    words = Some(said["code"].as_str().expect("a code").to_owned());
                }
            }
            Some(Ok(Message::Close(Some(frame)))) => {
                words = words.or_else(|| Some(format!("{:?} {}", frame.code, frame.reason)));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return words,
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[test]
fn before_the_registration() {
    let runtime = runtime();
    let neighbourhood = runtime.block_on(Neighbourhood::new());
    each(1024, prop::collection::vec(act(), 1..8), |acts| {
        runtime.block_on(async {
            let mut bad = neighbourhood.gateway.dial().await;
            for act in &acts {
                if !act.perform(&mut bad, "bad").await {
                    break;
                }
            }
            neighbourhood.is_well().await;
            drop(bad);
            neighbourhood.is_alone().await;
        });
    });
}

#[test]
fn after_the_registration() {
    let runtime = runtime();
    let neighbourhood = runtime.block_on(Neighbourhood::new());
    each(1024, (prop::collection::vec(act(), 1..10), any::<bool>()), |(acts, tunnel)| {
        runtime.block_on(async {
            let mut message = register("bad");
            if tunnel {
                message["tunnel"] = json!({"version": 1, "max_streams": 4});
            }
            let mut bad = neighbourhood.gateway.join(message).await;
            soon(neighbourhood.gateway.until(|fleet| fleet.runner("bad").is_some())).await;
            for act in &acts {
                if !act.perform(&mut bad, "bad").await {
                    break;
                }
            }
            neighbourhood.is_well().await;
            drop(bad);
            neighbourhood.is_alone().await;
        });
    });
}

/// Who sends what is never right is told what is wrong, and the connection ends.
#[test]
fn a_peer_is_told_what_is_wrong() {
    let runtime = runtime();
    let neighbourhood = runtime.block_on(Neighbourhood::new());
    let wrong = prop_oneof![
        bytes(512).prop_map(Act::Text),
        json().prop_map(|json| Act::Text(json.into_bytes())),
        bytes(512).prop_map(Act::Binary),
        // Reserved kinds.
        Just(Act::Raw(vec![0x83, 0x80, 0, 0, 0, 0])),
        // Without a mask.
        Just(Act::Raw(vec![0x81, 0x01, b'a'])),
        // Longer than any message may be.
        Just(Act::Raw(vec![0x81, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0])),
        // No text.
        Just(Act::Raw(vec![0x81, 0x82, 0, 0, 0, 0, 0xc3, 0x28])),
    ];
    each(256, (wrong, any::<bool>()), |(act, registered)| {
        // What is not understood afterwards is passed over, as newer programs may say more.
        let is_raw = matches!(act, Act::Raw(_));
        if registered && !is_raw {
            return;
        }
        runtime.block_on(async {
            let mut bad = if registered {
                neighbourhood.gateway.join(register("bad")).await
            } else {
                neighbourhood.gateway.dial().await
            };
            assert!(act.perform(&mut bad, "bad").await);
            let words = last_words(&mut bad).await;
            let words = words.unwrap_or_else(|| panic!("{act:?} was not answered"));
            if !is_raw {
                assert!(["PARSE_ERROR", "PROTOCOL_ERROR"].contains(&words.as_str()), "{words}");
            }
            neighbourhood.is_alone().await;
            neighbourhood.is_well().await;
        });
    });
}

/// A runner that was let in with a tunnel and speaks no HTTP/2 on it, or too much: requests that are sent there fail, and
/// what it can make the gateway hold is bounded.
#[test]
fn on_the_tunnel() {
    /// Far less than a hostile megabyte for each of 1,024 streams; what one connection's buffers may hold.
    const MOST: u64 = 8 << 20;
    let runtime = runtime();
    let neighbourhood = runtime.block_on(Neighbourhood::new());
    let cuts = || prop::collection::vec(any::<Index>(), 0..4);
    each(1024, (http2(), cuts(), http2(), cuts()), |(first, first_cuts, second, second_cuts)| {
        let used = allocation_counter::measure(|| {
            runtime.block_on(async {
                let mut message = register("bad");
                message["tunnel"] = json!({"version": 1, "max_streams": 4});
                let mut bad = neighbourhood.gateway.join(message).await;
                soon(neighbourhood.gateway.until(|fleet| fleet.runner("bad").is_some())).await;
                let link = neighbourhood.gateway.runner("bad").unwrap().link().clone();
                let asked = tokio::spawn(async move {
                    let whole = async { link.send(post("{}")).await?.into_body().collect().await };
                    // The dispatcher's time for a first byte, and the idle time.
                    tokio::time::timeout(Duration::from_secs(300), whole).await.is_ok()
                });
                Act::Tunnel(first, first_cuts).perform(&mut bad, "bad").await;
                Act::Tunnel(second, second_cuts).perform(&mut bad, "bad").await;
                neighbourhood.is_well().await;
                drop(bad);
                let ended = soon(asked).await.expect("a request must not panic");
                assert!(ended, "without its connection a request ends");
                neighbourhood.is_alone().await;
                neighbourhood.is_well().await;
            });
        });
        assert!(used.bytes_max < MOST, "{} bytes", used.bytes_max);
    });
}

/// Floods that RFC 9113 warns of, each of ten thousand frames.
#[test]
fn floods_on_the_tunnel() {
    const MOST: u64 = 8 << 20;
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    };
    let floods = [
        ("settings", frame(4, 0, 0, &[0, 3, 0, 0, 0, 100])),
        ("ping", frame(6, 0, 0, &[0; 8])),
        ("reset", frame(3, 0, 1, &[0, 0, 0, 8])),
        ("empty data", frame(0, 0, 1, &[])),
        ("data", frame(0, 0, 1, &[7; 1024])),
        ("window", frame(8, 0, 0, &[0, 0, 0, 1])),
        ("unknown", frame(0x42, 0, 0, &[0; 64])),
        ("priority", frame(2, 0, 3, &[0, 0, 0, 0, 1])),
        ("continuation", frame(9, 0, 1, &[0; 512])),
        ("promise", frame(5, 4, 1, &[0, 0, 0, 2, 0x82, 0x86, 0x84])),
        ("goaway", frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])),
    ];
    let runtime = runtime();
    let neighbourhood = runtime.block_on(Neighbourhood::new());
    for (name, flood) in floods {
        let used = allocation_counter::measure(|| {
            runtime.block_on(async {
                let mut message = register("bad");
                message["tunnel"] = json!({"version": 1, "max_streams": 4});
                let mut bad = neighbourhood.gateway.join(message).await;
                soon(neighbourhood.gateway.until(|fleet| fleet.runner("bad").is_some())).await;
                let link = neighbourhood.gateway.runner("bad").unwrap().link().clone();
                let asked = tokio::spawn(async move { link.send(post("{}")).await.map(drop) });
                let mut begun = frame(4, 0, 0, &[]);
                if name == "continuation" {
                    begun.extend(frame(1, 0, 1, &[0x88]));
                }
                let _ = bad.socket.send(Message::binary(begun)).await;
                let flooding = async {
                    let many = flood.repeat((64 * 1024 / flood.len()).max(1));
                    for _ in 0..10_000 * flood.len() / many.len() + 1 {
                        if bad.socket.feed(Message::binary(many.clone())).await.is_err() {
                            break;
                        }
                    }
                };
                // Who does not read what it is owed is not read either: then it stands still.
                let _ = tokio::time::timeout(Duration::from_secs(5), flooding).await;
                neighbourhood.is_well().await;
                drop(bad);
                let _ = soon(asked).await.expect("a request must not panic");
                neighbourhood.is_alone().await;
            });
        });
        assert!(used.bytes_max < MOST, "{name}: {} bytes", used.bytes_max);
    }
}
