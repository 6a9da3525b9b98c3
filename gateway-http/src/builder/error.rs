use super::GatewayBuilder;
use crate::generic::InvalidRoute;
use crate::inference::PromptHashing;

/// Why a gateway could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Nobody said who the clients are.
    #[error(
        "nobody may use this gateway: call client_tokens or client_authenticator, or allow_anonymous_clients if \
         everybody may"
    )]
    NoClients,
    /// Tokens, an authenticator and anonymous access exclude each other.
    #[error("{whose}s are let in by tokens, by an authenticator or all of them: call one of the three")]
    Contradiction {
        /// `client` or `admin`.
        whose: &'static str,
    },
    /// A token that nobody could send.
    #[error("a {whose} token is invalid: it must be one or more visible ASCII characters without spaces")]
    InvalidToken {
        /// `client` or `admin`.
        whose: &'static str,
    },
    /// A door's path is no path, or leads somewhere else already.
    #[error(
        "the door path `{path}` must begin with `/` and must not be in use: give the runner source another"
    )]
    DoorTaken {
        /// The path.
        path: String,
    },
    /// Blocks of prompts that are hardly more than their hash.
    #[error(
        "prompts are hashed in blocks of at least {} bytes: make them larger",
        PromptHashing::MIN_BLOCK_BYTES
    )]
    BlocksTooSmall,
    /// Comments would be most of what is sent.
    #[error(
        "event streams are kept alive every {:?} at most: give a longer time",
        GatewayBuilder::MIN_SSE_KEEPALIVE
    )]
    KeepaliveTooShort,
    /// Each sink takes time on every request.
    #[error("a gateway has at most {} request sinks: put several behind one", GatewayBuilder::MAX_SINKS)]
    TooManySinks,
    /// A route besides the gateway's own, or what requests need, makes no sense.
    #[error(transparent)]
    Generic(#[from] InvalidRoute),
    /// A gateway keeps its runner sources and request sinks when its settings change.
    #[error("the {what} of a gateway cannot be changed while it runs: leave them out of the new settings")]
    Lasting {
        /// What was given.
        what: &'static str,
    },
    /// Runner sources, and whoever unloads idle models, need a runtime to run on.
    #[error("runner sources and keep-alive times need a tokio runtime: call build within one")]
    NoRuntime,
}
