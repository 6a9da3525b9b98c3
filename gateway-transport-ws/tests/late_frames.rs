//! A runner that writes HTTP/2 by hand, and always a little late: what it sends on streams that the gateway
//! has given up must not cost the tunnel.

mod support;

use gateway_transport_ws::socket::{TunnelIo, split};
use serde_json::json;
use support::{Gateway, post, register, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PREFACE: usize = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Tells the test of every frame, and answers a stream's first reset with a chunk on it.
async fn late(mut io: TunnelIo, seen: mpsc::Sender<(u8, u32)>) {
    io.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let mut preface = [0; PREFACE];
    io.read_exact(&mut preface).await.unwrap();
    let mut head = [0; 9];
    let mut newest = 0;
    while io.read_exact(&mut head).await.is_ok() {
        let len = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, stream) = (head[3], u32::from_be_bytes(head[5..].try_into().unwrap()));
        io.read_exact(&mut vec![0; len]).await.unwrap();
        match kind {
            SETTINGS if head[4] == 0 => io.write_all(&frame(SETTINGS, 1, 0, &[])).await.unwrap(),
            RST_STREAM if stream > newest => {
                newest = stream;
                io.write_all(&frame(DATA, 0, stream, b"late")).await.unwrap();
            }
            _ => {}
        }
        seen.send((kind, stream)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn late_chunks_of_thousands_of_cancelled_streams_do_not_end_the_tunnel() {
    let gateway = Gateway::default().await;
    let mut message = register("r1");
    message["tunnel"] = json!({"version": 1, "max_streams": 1});
    let (mut control, io, driver) = split(gateway.join(message).await.socket);
    let (to_test, mut seen) = mpsc::channel(1);
    tokio::spawn(driver.beside(late(io, to_test)));
    tokio::spawn(async move { while control.recv().await.is_some() {} });
    gateway.until(|fleet| fleet.runner("r1").is_some()).await;
    let runner = gateway.runner("r1").unwrap();
    // More than are remembered, and then more than HTTP/2 libraries put up with.
    for nth in 0..2500_u32 {
        let link = runner.link().clone();
        let sending = tokio::spawn(async move { link.send(post("{}")).await.map(|_| ()) });
        let stream = 2 * nth + 1;
        while soon(seen.recv()).await.expect("the tunnel ended") != (HEADERS, stream) {}
        sending.abort();
        while soon(seen.recv()).await.expect("the tunnel ended") != (RST_STREAM, stream) {}
    }
    assert!(!runner.has_left());
}
