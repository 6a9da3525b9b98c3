//! The names of things: runners, models, requests, generations.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}")]
pub struct InvalidName {
    what: &'static str,
    problem: &'static str,
}

pub(crate) fn check(what: &'static str, name: &str, longest: usize) -> Result<(), InvalidName> {
    if name.trim().is_empty() {
        return Err(InvalidName { what, problem: "cannot be empty" });
    }
    if name.len() > longest {
        return Err(InvalidName { what, problem: "is too long" });
    }
    if name.chars().any(char::is_control) {
        return Err(InvalidName { what, problem: "contains a control character" });
    }
    Ok(())
}

/// The stable name of a runner, chosen by whoever runs it. Cheap to clone.
///
/// ```
/// use gateway_core::RunnerId;
/// let id = RunnerId::new("gpu-1")?;
/// assert_eq!(id.as_str(), "gpu-1");
/// assert!(RunnerId::new("").is_err());
/// # Ok::<(), gateway_core::InvalidName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunnerId(Arc<str>);

impl RunnerId {
    /// Longest id that is accepted, in bytes: ids travel in headers and metric labels.
    pub const MAX_LEN: usize = 256;

    /// Checks and wraps an id: not empty, at most [`RunnerId::MAX_LEN`] bytes, no control characters.
    pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidName> {
        check("Runner ID", id.as_ref(), Self::MAX_LEN)?;
        Ok(Self(id.as_ref().into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name under which clients ask for a model. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelId(Arc<str>);

impl ModelId {
    /// Longest name that is accepted, in bytes.
    pub const MAX_LEN: usize = 512;

    /// Checks and wraps a name: not empty, at most [`ModelId::MAX_LEN`] bytes, no control characters.
    pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidName> {
        check("Model name", id.as_ref(), Self::MAX_LEN)?;
        Ok(Self(id.as_ref().into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of one request in logs, headers and errors. Cheap to clone.
///
/// A client's own `x-request-id` is kept if it is at most [`RequestId::MAX_LEN`] visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId(http::HeaderValue);

impl RequestId {
    /// Longest id that is taken over from a client, in bytes.
    pub const MAX_LEN: usize = 128;

    /// Takes over a client's id, or `None` when it is too long or not visible ASCII.
    pub fn from_header(value: &http::HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let fine =
            !bytes.is_empty() && bytes.len() <= Self::MAX_LEN && bytes.iter().all(u8::is_ascii_graphic);
        // Copied: a value shares the block that its whole head was read into, and an id may outlast it by far.
        http::HeaderValue::from_bytes(bytes).ok().filter(|_| fine).map(Self)
    }

    /// A new random id: `req_` and 32 hexadecimal digits (128 bits, not for use as a secret).
    pub fn random() -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = *b"req_00000000000000000000000000000000";
        let mut bits = fastrand::u128(..);
        for digit in &mut text[4..] {
            *digit = HEX[(bits & 15) as usize];
            bits >>= 4;
        }
        Self(http::HeaderValue::from_bytes(&text).unwrap_or(http::HeaderValue::from_static("req_0")))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The id as a header value; cloning it copies no bytes.
    pub fn header(&self) -> &http::HeaderValue {
        &self.0
    }
}

/// Which of a runner's registrations is meant. Grows with every join, so that the late end of an old
/// connection is told apart from the new connection under the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// One registration of one runner.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunnerKey {
    /// Which runner.
    pub id: RunnerId,
    /// Which of its registrations.
    pub generation: Generation,
}

macro_rules! text_impls {
    ($($name:ty),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
    )*};
}
text_impls!(RunnerId, ModelId);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for RunnerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.id, self.generation.0)
    }
}
