//! The first message of a connection.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use gateway_core::RunnerSpec;
use gateway_dial_in::gateway::{Refusal, Tokens};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::protocol::{GatewayMessage, PROTOCOL_VERSION, Register, RunnerMessage};
use crate::socket::complaint;

/// How long a peer that is refused has to take its error and the close frame.
const GOODBYE: Duration = Duration::from_secs(2);

/// Waits for the registration and checks it, in the order that the protocol names.
pub(super) async fn register<S>(
    socket: &mut WebSocketStream<S>,
    tokens: &Tokens,
) -> Result<(Register, RunnerSpec), Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let register = loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => match RunnerMessage::parse(&text) {
                Ok(RunnerMessage::Register(register)) => break *register,
                Ok(_) => return Err(Refusal::protocol("Expected Register message")),
                // Where it is wrong, not what stands there: that may be the token.
                Err(error) => {
                    let message = format!("Invalid JSON at line {}, column {}", error.line(), error.column());
                    return Err(Refusal::told("PARSE_ERROR", message));
                }
            },
            Some(Ok(Message::Binary(_))) => return Err(Refusal::protocol("Expected text message")),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Err(error)) => {
                let told = |frame: CloseFrame| {
                    Refusal::protocol(format!("The connection is broken: {}", frame.reason))
                };
                return Err(complaint(&error).map_or(Refusal::Gone, told));
            }
            Some(Ok(Message::Close(_))) | None => return Err(Refusal::Gone),
        }
    };
    let spec = check(&register, tokens)?;
    Ok((register, spec))
}

fn check(register: &Register, tokens: &Tokens) -> Result<RunnerSpec, Refusal> {
    if !tokens.admit(&register.runner_id, &register.auth_token) {
        return Err(Refusal::auth("Invalid auth token"));
    }
    if register.protocol_version != PROTOCOL_VERSION {
        let theirs = register.protocol_version;
        return Err(Refusal::auth(format!(
            "Protocol version mismatch: expected {PROTOCOL_VERSION}, got {theirs}"
        )));
    }
    // Its text for an empty id is the protocol's.
    register.spec().map_err(|invalid| Refusal::auth(invalid.to_string()))
}

/// Says why, and closes.
pub(super) async fn refuse<S>(mut socket: WebSocketStream<S>, refusal: Refusal)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Refusal::Told { code, message } = refusal else { return };
    tracing::warn!(code, message, "a runner was not let in");
    let error = GatewayMessage::Error { code: code.to_owned(), message };
    let goodbye = async {
        socket.send(Message::text(error.to_text())).await?;
        socket.close(None).await?;
        // Until it has taken both: closing the connection under bytes that were not read would undo them.
        while let Some(Ok(_)) = socket.next().await {}
        Ok::<_, tokio_tungstenite::tungstenite::Error>(())
    };
    let _ = timeout(GOODBYE, goodbye).await;
}
