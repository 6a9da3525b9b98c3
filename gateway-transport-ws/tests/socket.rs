//! The socket under both: what is bounded, what comes first, and that no byte is lost.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use gateway_transport_ws::socket::{
    CONTROL_QUEUE, Control, Driver, FRAME_BYTES, INBOUND_BYTES, OUTBOUND_BYTES, SendError, TunnelIo, split,
    websocket_config,
};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

type Socket = WebSocketStream<DuplexStream>;

/// What stands between both ends, in bytes.
const WIRE: usize = 4096;

async fn pair() -> (Socket, Socket) {
    let (client, server) = duplex(WIRE);
    let client = Socket::from_raw_socket(client, Role::Client, Some(websocket_config())).await;
    (client, Socket::from_raw_socket(server, Role::Server, Some(websocket_config())).await)
}

async fn ends() -> (Socket, Control, TunnelIo, Driver<DuplexStream>) {
    let (client, server) = pair().await;
    let (control, io, driver) = split(server);
    (client, control, io, driver)
}

/// Under a paused clock: when nothing else can happen any more.
const NEVER: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn control_messages_overtake_data() {
    let (mut client, control, mut io, driver) = ends().await;
    tokio::spawn(driver);
    let written = tokio::spawn(async move {
        io.write_all(&vec![1; 10 * OUTBOUND_BYTES]).await.unwrap();
        io
    });
    // Until everything between is full: the client does not read.
    tokio::time::sleep(NEVER).await;
    assert!(!written.is_finished());
    control.sender().send("now").unwrap();
    let mut before = 0;
    loop {
        match client.next().await.unwrap().unwrap() {
            Message::Binary(data) => before += data.len(),
            Message::Text(text) => break assert_eq!(text, "now"),
            other => panic!("{other:?}"),
        }
    }
    assert!(before <= 2 * FRAME_BYTES + WIRE, "{before} bytes of data came first");
    while before < 10 * OUTBOUND_BYTES {
        before += client.next().await.unwrap().unwrap().into_data().len();
    }
    written.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_no_messages_is_told_from_one_that_does() {
    let (mut client, control, _io, driver) = ends().await;
    tokio::spawn(driver);
    let message = "x".repeat(FRAME_BYTES);
    let mut sent = 0;
    let error = loop {
        match control.sender().send(message.clone()) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        tokio::time::sleep(NEVER).await;
        assert!(sent < 2 * CONTROL_QUEUE);
    };
    assert_eq!(error, SendError::TooSlow);
    for _ in 0..sent {
        assert!(client.next().await.unwrap().unwrap().is_text());
    }
    control.sender().send("again").unwrap();
    let too_long = gateway_transport_ws::socket::MESSAGE_BYTES + 1;
    assert_eq!(control.sender().send("x".repeat(too_long)), Err(SendError::TooLong(too_long)));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_reads_is_not_taken_from_the_socket() {
    let (mut client, mut control, mut io, driver) = ends().await;
    tokio::spawn(driver);
    let frame = vec![1; 8192];
    let mut sent = 0;
    while let Ok(done) = timeout(NEVER, client.send(Message::binary(frame.clone()))).await {
        done.unwrap();
        sent += frame.len();
        assert!(sent < 2 * INBOUND_BYTES);
    }
    assert!(sent >= INBOUND_BYTES);
    let mut read = vec![0; sent];
    io.read_exact(&mut read).await.unwrap();
    client.flush().await.unwrap();
    client.send(Message::text("through")).await.unwrap();
    assert_eq!(control.recv().await.unwrap(), "through");
}

#[tokio::test(start_paused = true)]
async fn tiny_frames_are_bounded_too() {
    let (mut client, _control, _io, driver) = ends().await;
    tokio::spawn(driver);
    let mut sent = 0;
    while let Ok(done) = timeout(NEVER, client.send(Message::binary(&b"x"[..]))).await {
        done.unwrap();
        sent += 1;
        assert!(sent < 10_000);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_are_never_lost_when_nobody_listens_for_a_while() {
    let (mut client, mut control, _io, driver) = ends().await;
    tokio::spawn(driver);
    let sending = tokio::spawn(async move {
        for nth in 0..1000 {
            client.send(Message::text(nth.to_string())).await.unwrap();
        }
        client.close(None).await.unwrap();
        while client.next().await.is_some() {}
    });
    tokio::time::sleep(NEVER).await;
    for nth in 0..1000 {
        assert_eq!(control.recv().await.unwrap(), nth.to_string());
    }
    assert_eq!(control.recv().await, None);
    sending.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn close_comes_after_what_was_said_and_ends_both() {
    let (mut client, mut control, mut io, driver) = ends().await;
    let driving = tokio::spawn(driver);
    control.sender().send("last words").unwrap();
    control.sender().close().unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("last words"));
    assert!(client.next().await.unwrap().unwrap().is_close());
    assert!(client.next().await.is_none());
    driving.await.unwrap().unwrap();
    assert_eq!(control.recv().await, None);
    assert_eq!(control.sender().send("too late"), Err(SendError::Ended));
    assert_eq!(io.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(io.write(&[0]).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_the_close_is_left() {
    let (client, control, _io, driver) = ends().await;
    control.sender().close().unwrap();
    timeout(Duration::from_secs(3), driver).await.expect("it is waited for too long").unwrap();
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_an_error_and_wakes_everyone() {
    let (client, mut control, mut io, driver) = ends().await;
    let driving = tokio::spawn(driver);
    let reading = tokio::spawn(async move { io.read(&mut [0; 1]).await.unwrap() });
    tokio::task::yield_now().await;
    drop(client);
    assert!(driving.await.unwrap().is_err());
    assert_eq!(reading.await.unwrap(), 0);
    assert_eq!(control.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_is_dropped_wakes_everyone() {
    let (_client, mut control, mut io, driver) = ends().await;
    let reading = tokio::spawn(async move { io.read(&mut [0; 1]).await.unwrap() });
    tokio::task::yield_now().await;
    drop(driver);
    assert_eq!(reading.await.unwrap(), 0);
    assert_eq!(control.recv().await, None);
}

/// Copies what comes back to where it came from, until the end.
async fn echo(mut io: TunnelIo, chunk: usize) {
    let mut buffer = vec![0; chunk];
    while let Ok(len @ 1..) = io.read(&mut buffer).await {
        if io.write_all(&buffer[..len]).await.is_err() {
            return;
        }
    }
}

/// How the byte stream's user runs: beside the driver, in another task, or in the same task but not beside.
#[derive(Debug, Clone, Copy)]
enum Where {
    Beside,
    Elsewhere,
    Joined,
}

async fn echoed(place: Where, frames: Vec<usize>, chunk: usize) {
    let (client, mut control, io, driver) = ends().await;
    match place {
        Where::Beside => drop(tokio::spawn(async move { driver.beside(echo(io, chunk)).await })),
        Where::Elsewhere => {
            tokio::spawn(driver);
            tokio::spawn(echo(io, chunk));
        }
        Where::Joined => drop(tokio::spawn(async move { tokio::join!(driver, echo(io, chunk)) })),
    }
    let total: usize = frames.iter().sum();
    let (mut send, mut receive) = client.split();
    let sending = tokio::spawn(async move {
        let mut next = 0_u8;
        for len in frames {
            let frame: Vec<u8> = (0..len)
                .map(|_| {
                    next = next.wrapping_add(1);
                    next
                })
                .collect();
            send.send(Message::binary(frame)).await.unwrap();
            send.send(Message::text("between")).await.unwrap();
        }
        send
    });
    tokio::spawn(async move { while control.recv().await.is_some() {} });
    let mut expected = 0_u8;
    let mut received = 0;
    while received < total {
        let data = timeout(Duration::from_secs(60), receive.next()).await.expect("it hangs");
        let data = data.unwrap().unwrap().into_data();
        assert!(data.len() <= FRAME_BYTES);
        for byte in &data {
            expected = expected.wrapping_add(1);
            assert_eq!(*byte, expected, "at byte {received}");
            received += 1;
        }
    }
    drop(sending.await.unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn every_byte_comes_back_in_order(
        place in prop::sample::select(vec![Where::Beside, Where::Elsewhere, Where::Joined]),
        frames in prop::collection::vec(prop_oneof![0_usize..50, 1000_usize..70_000], 1..12),
        chunk in prop_oneof![1_usize..100, 1000_usize..100_000],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(echoed(place, frames, chunk));
    }
}
