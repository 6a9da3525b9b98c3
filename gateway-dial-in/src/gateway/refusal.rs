//! Why a connection is not let in.

/// Why a connection is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It went by itself.
    Gone,
    /// It is told why.
    Told {
        /// For programs.
        code: &'static str,
        /// For people.
        message: String,
    },
}

impl Refusal {
    /// The token is wrong, or whoever has it is nobody that can come in.
    pub const AUTH_FAILED: &'static str = "AUTH_FAILED";
    /// The peer does not keep to the protocol.
    pub const PROTOCOL_ERROR: &'static str = "PROTOCOL_ERROR";
    /// The registration did not come in time.
    pub const TIMEOUT: &'static str = "TIMEOUT";
    /// Another connection has registered under the same id.
    pub const REPLACED: &'static str = "REPLACED";

    /// The registration did not come in time.
    pub fn timeout() -> Self {
        Self::told(Self::TIMEOUT, "Registration timeout")
    }

    /// The peer does not keep to the protocol.
    pub fn protocol(message: impl Into<String>) -> Self {
        Self::told(Self::PROTOCOL_ERROR, message)
    }

    /// The peer is not let in as who it says it is.
    pub fn auth(message: impl Into<String>) -> Self {
        Self::told(Self::AUTH_FAILED, message)
    }

    /// Any other reason.
    pub fn told(code: &'static str, message: impl Into<String>) -> Self {
        Self::Told { code, message: message.into() }
    }
}
