//! Large bodies pass through the gateway without being in its memory. One test alone in its process.
#![cfg(target_os = "linux")]

mod common;
mod generic_support;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use gateway_core::LinkError;
use gateway_http::GenericRoute;
use generic_support::*;
use http::Response;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MIB: usize = 1 << 20;
/// Each way. 1 GiB with `GENERIC_MEMORY_MIB=1024`.
const SIZE: usize = 256;
/// What this may cost, everything on both sides of the gateway included.
const MOST: usize = 50 * MIB;

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
}

/// Sets the high-water mark to what is resident now, where the kernel lets one.
fn forget_the_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// A body of so many chunks of a MiB, one after the other.
struct Large(usize, Bytes);

impl http_body::Body for Large {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, LinkError>>> {
        std::task::Poll::Ready(self.0.checked_sub(1).map(|left| {
            self.0 = left;
            Ok(http_body::Frame::data(self.1.clone()))
        }))
    }
}

#[tokio::test]
async fn bodies_are_never_gathered() {
    let size = std::env::var("GENERIC_MEMORY_MIB").map_or(SIZE, |size| size.parse().unwrap());
    let chunk = Bytes::from(vec![7; MIB]);
    let served = chunk.clone();
    let runner = backend(move |request| {
        let chunk = served.clone();
        async move {
            let mut body = request.into_body();
            let mut read = 0;
            while let Some(frame) = body.frame().await {
                read += frame.unwrap().into_data().map_or(0, |data| data.len());
            }
            let mut answer = Response::new(Large(size, chunk));
            answer.headers_mut().insert("x-read", read.into());
            answer
        }
    })
    .await;
    let gateway = with_route(GenericRoute::prefix("/")).build().unwrap();
    add_http(&gateway, "r1", runner.address);
    let server = serve(&gateway).await;

    let exchange = async |mib: usize| {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "POST /task HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {CLIENT}\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n",
            mib * MIB
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..mib {
            stream.write_all(&chunk).await.unwrap();
        }
        let mut buffer = vec![0; 64 * 1024];
        let mut read = 0;
        let mut head = Vec::new();
        loop {
            match stream.read(&mut buffer).await.unwrap() {
                0 => break,
                n => {
                    if read == 0 {
                        head.extend_from_slice(&buffer[..n]);
                    }
                    read += n;
                }
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(head.contains(&format!("x-read: {}\r\n", mib * MIB)), "{}", &head[..head.len().min(300)]);
        assert!(read >= size * MIB, "{read}");
    };
    // Whatever is made once is there.
    exchange(1).await;
    let can_forget = forget_the_peak();
    let before = resident();
    exchange(size).await;
    let grown = resident().saturating_sub(before);
    println!("{size} MiB each way: {:.1} MiB more at the peak", grown as f64 / MIB as f64);
    assert!(grown < MOST, "{} MiB (peak forgotten before: {can_forget})", grown / MIB);
    tokio::time::timeout(Duration::from_secs(5), gateway.dispatcher().idle()).await.unwrap();
}
