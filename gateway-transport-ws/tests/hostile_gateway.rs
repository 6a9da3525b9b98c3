//! A gateway that is broken or means no good, seen from the runner: control messages and HTTP/2 of anything. The agent goes
//! on serving its other gateway, and comes back to this one.

mod agent_support;
mod hostile_support;

use agent_support::{Engine, Gateway, Network, Peer, Tunnel, agent, run};
use futures_util::{SinkExt, StreamExt};
use hostile_support::{
    Harm, bytes, count_panics, each, harm, harmed, http2_client, in_pieces, json, no_panics,
};
use proptest::prelude::*;
use proptest::sample::Index;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

const ACK: &str = r#"{"type":"register_ack","runner_id":"gpu-1","tunnel":{"version":1,"max_streams":8}}"#;
const LOAD: &str = r#"{"type":"load_model","model_id":"small","request_id":"1"}"#;

#[derive(Debug, Clone)]
enum Act {
    Text(Vec<u8>),
    /// The registration is acknowledged, or a command given, with some harm done to it.
    Harmed(&'static str, Vec<Harm>),
    Tunnel(Vec<u8>, Vec<Index>),
    Raw(Vec<u8>),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => bytes(512).prop_map(Act::Text),
        2 => json().prop_map(|json| Act::Text(json.into_bytes())),
        3 => (prop::sample::select(vec![ACK, LOAD]), prop::collection::vec(harm(), 0..5))
            .prop_map(|(sound, harms)| Act::Harmed(sound, harms)),
        5 => (http2_client(), prop::collection::vec(any::<Index>(), 0..4))
            .prop_map(|(bytes, cuts)| Act::Tunnel(bytes, cuts)),
        1 => bytes(64).prop_map(Act::Raw),
    ]
}

/// Says all of it to a runner that has just dialled; nobody minds if it does not listen to the end.
async fn perform(socket: &mut WebSocketStream<DuplexStream>, acts: &[Act]) -> Option<()> {
    for act in acts {
        let text = |bytes: &[u8]| vec![Message::text(String::from_utf8_lossy(bytes).into_owned())];
        let messages = match act {
            Act::Text(bytes) => text(bytes),
            Act::Harmed(sound, harms) => text(&harmed(sound, harms)),
            Act::Tunnel(bytes, cuts) => in_pieces(bytes, cuts).into_iter().map(Message::binary).collect(),
            Act::Raw(bytes) => {
                socket.get_mut().write_all(bytes).await.ok()?;
                continue;
            }
        };
        for message in messages {
            socket.send(message).await.ok()?;
        }
    }
    Some(())
}

async fn is_well(tunnel: &Tunnel) {
    let answer = tunnel.request("/v1/chat/completions").await;
    assert_eq!(Tunnel::text(answer).await.unwrap(), "hello");
    no_panics();
}

#[test]
fn the_agent_survives_it() {
    /// What one connection's buffers and ten streams may hold at the runner.
    const MOST: u64 = 8 << 20;
    count_panics();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let (network, engine) = (Network::default(), Engine::idle());
    let (mut good, mut bad): (Gateway, Gateway) = (network.gateway("good"), network.gateway("bad"));
    let (_agent, _peer, tunnel) = runtime.block_on(async {
        let agent = run(agent(&network, &["good", "bad"], &engine, 8));
        let (mut peer, _) = good.registered().await;
        let tunnel: Tunnel = peer.tunnel().await;
        (agent, keep_hearing(peer), tunnel)
    });
    each(768, (any::<bool>(), prop::collection::vec(act(), 1..8)), |(acknowledged, acts)| {
        let used = allocation_counter::measure(|| {
            runtime.block_on(async {
                // It comes back each time, however it was treated.
                let mut socket = accept_async(bad.dialled().await).await.expect("the handshake failed");
                let register = socket.next().await.expect("a registration").unwrap();
                assert!(register.to_text().unwrap().contains(r#""type":"register""#));
                if acknowledged {
                    socket.send(Message::text(ACK)).await.unwrap();
                }
                let _ = perform(&mut socket, &acts).await;
                is_well(&tunnel).await;
                drop(socket);
            });
        });
        assert!(used.bytes_max < MOST, "{} bytes", used.bytes_max);
    });
    runtime.block_on(is_well(&tunnel));
}

/// Takes what the agent says, so that it never waits for that.
fn keep_hearing(mut peer: Peer) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            peer.next().await;
        }
    })
}
