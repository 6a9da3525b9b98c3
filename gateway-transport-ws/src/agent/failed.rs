//! Why there is no connection to a gateway.

use std::fmt;
use std::io;

use tokio_tungstenite::tungstenite;

use crate::socket::{SendError, SocketError};

/// For logs only: every one of these ends in another try.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("no WebSocket is spoken there: {0}; is the path right?")]
    Handshake(#[source] Box<tungstenite::Error>),
    #[error("{0}")]
    TimedOut(&'static str),
    #[error("the gateway refused this runner: {0}")]
    Refused(Refusal),
    #[error("the gateway closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Broken(#[source] SocketError),
    #[error("the gateway cannot be told anything: {0}")]
    Deaf(#[from] SendError),
}

/// What a gateway said in an `error` message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    code: String,
    message: String,
}

impl Refusal {
    /// Longest part of a gateway's words that is repeated in logs, in characters.
    const LONGEST: usize = 200;

    pub(super) fn new(code: &str, message: &str) -> Self {
        let cut = |text: &str| text.chars().take(Self::LONGEST).collect();
        Self { code: cut(code), message: cut(message) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Escaped: another program's words must not make lines of their own in our log.
        write!(f, "{} ({})", self.code.escape_debug(), self.message.escape_debug())
    }
}

impl Failed {
    /// Whether trying again soon is pointless, because people have to mend something first.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            // A gateway says this of a runner that was too slow, which may be better next time.
            Self::Refused(refusal) => refusal.code != "TIMEOUT",
            Self::Handshake(error) => match &**error {
                tungstenite::Error::Http(response) => {
                    // Too early, too many, too slow: these pass.
                    let status = response.status();
                    status.is_client_error() && !matches!(status.as_u16(), 408 | 425 | 429)
                }
                _ => false,
            },
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_people_must_mend_is_a_refusal() {
        let refused = |code| Failed::Refused(Refusal::new(code, "")).is_refusal();
        assert!(refused("AUTH_FAILED") && refused("PARSE_ERROR") && !refused("TIMEOUT"));
        let answered = |status: u16| {
            let mut response = http::Response::new(None);
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            Failed::Handshake(Box::new(tungstenite::Error::Http(Box::new(response)))).is_refusal()
        };
        assert!(answered(401) && answered(404) && !answered(503) && !answered(429));
        assert!(!Failed::Closed.is_refusal());
    }

    #[test]
    fn a_gateways_words_are_cut_and_make_no_lines() {
        let refusal = Refusal::new("AUTH_FAILED", &format!("bad\n{}", "x".repeat(5000))).to_string();
        assert!(refusal.starts_with(r"AUTH_FAILED (bad\nxxx") && refusal.len() < 300);
    }
}
