//! What was written to the tunnel goes out before the close.
use futures_util::StreamExt;
use gateway_transport_ws::socket::{split, websocket_config};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

#[tokio::test(start_paused = true)]
async fn what_a_user_that_is_done_has_written_goes_out_before_the_close() {
    let (near, far) = tokio::io::duplex(1024);
    let near = WebSocketStream::from_raw_socket(near, Role::Client, Some(websocket_config())).await;
    let mut far = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
    let (control, mut io, driver) = split(near);
    let driving = tokio::spawn(driver.beside(async move {
        io.write_all(&[7; 60_000]).await.unwrap();
    }));
    tokio::task::yield_now().await;
    control.sender().close().unwrap();
    let mut bytes = 0;
    while let Some(Ok(message)) = far.next().await {
        match message {
            Message::Binary(data) => bytes += data.len(),
            Message::Close(_) => break,
            _ => {}
        }
    }
    assert_eq!(bytes, 60_000);
    let _ = far.next().await;
    drop(far);
    driving.await.unwrap().unwrap();
}
