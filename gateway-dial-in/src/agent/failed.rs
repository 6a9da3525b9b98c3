//! Why there is no connection to a gateway.

use std::fmt;
use std::io;

use gateway_core::BoxError;

use crate::Unsaid;

/// Why there is no connection to a gateway. For logs only: every one of these ends in another try.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// No byte stream could be made.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// Whoever is there does not speak the transport's protocol, or not to us.
    #[error("{problem}: {source}; {advice}")]
    Handshake {
        /// What went wrong, such as "no WebSocket is spoken there".
        problem: &'static str,
        /// What to look at.
        advice: &'static str,
        /// Whether people have to mend it, so that trying again soon is pointless.
        refused: bool,
        /// What lies behind it.
        source: BoxError,
    },
    /// It took too long.
    #[error("{0}")]
    TimedOut(&'static str),
    /// The gateway does not want this runner, and said why.
    #[error("the gateway refused this runner: {0}")]
    Refused(Refusal),
    /// The gateway closed the connection in good order.
    #[error("the gateway closed the connection")]
    Closed,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[source] BoxError),
    /// The gateway cannot be told anything.
    #[error("the gateway cannot be told anything: {0}")]
    Deaf(#[from] Unsaid),
}

/// What a gateway said was wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    code: String,
    message: String,
}

impl Refusal {
    /// Longest part of a gateway's words that is repeated in logs, in characters.
    const LONGEST: usize = 200;

    /// Keeps the first 200 characters of each.
    pub fn new(code: &str, message: &str) -> Self {
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
    pub fn is_refusal(&self) -> bool {
        match self {
            // A gateway says this of a runner that was too slow, which may be better next time.
            Self::Refused(refusal) => refusal.code != crate::gateway::Refusal::TIMEOUT,
            Self::Handshake { refused, .. } => *refused,
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
        let answered = |refused| {
            let (problem, advice) = ("", "");
            Failed::Handshake { problem, advice, refused, source: "".into() }.is_refusal()
        };
        assert!(answered(true) && !answered(false));
        assert!(!Failed::Closed.is_refusal());
    }

    #[test]
    fn a_gateways_words_are_cut_and_make_no_lines() {
        let refusal = Refusal::new("AUTH_FAILED", &format!("bad\n{}", "x".repeat(5000))).to_string();
        assert!(refusal.starts_with(r"AUTH_FAILED (bad\nxxx") && refusal.len() < 300);
    }
}
