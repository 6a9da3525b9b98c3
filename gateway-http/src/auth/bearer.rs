use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use http::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest, Sha256};

use super::{AuthError, Authenticator, Identity};
use crate::decision::Decision;

/// A fixed set of secret tokens, taken from `Authorization: Bearer TOKEN` or `X-API-Key: TOKEN`.
///
/// ```
/// use gateway_http::BearerTokens;
/// let tokens = BearerTokens::new(["first", "second"])?.with("team-a", "third")?;
/// assert_eq!(tokens.len(), 3);
/// # Ok::<(), gateway_http::InvalidToken>(())
/// ```
#[derive(Clone, Default)]
pub struct BearerTokens {
    /// Keyed by the token's SHA-256. How long a lookup takes depends on the digest of what the client sent,
    /// and nobody can choose digests that come ever closer to one that they do not know: there is nothing
    /// to learn from the time, without comparing with every token in turn. The tokens themselves are not
    /// kept.
    known: HashMap<[u8; 32], Identity, BuildHasherDefault<DigestHasher>>,
}

/// Takes a digest's first bytes for its hash: they are as good as random, and only the operator's tokens are in the map.
#[derive(Clone, Default)]
struct DigestHasher(u64);

impl Hasher for DigestHasher {
    fn write(&mut self, digest: &[u8]) {
        if let Some(first) = digest.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    fn write_usize(&mut self, _: usize) {
        // The length of an array says nothing.
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl BearerTokens {
    /// These tokens. Each stands for an identity named `key-1`, `key-2` and so on.
    pub fn new<T: AsRef<str>>(tokens: impl IntoIterator<Item = T>) -> Result<Self, InvalidToken> {
        tokens.into_iter().try_fold(Self::default(), |all, token| {
            let name = format!("key-{}", all.len() + 1);
            all.with(name, token)
        })
    }

    /// Adds a token that stands for the identity `name`.
    pub fn with(self, name: impl AsRef<str>, token: impl AsRef<str>) -> Result<Self, InvalidToken> {
        self.with_identity(Identity::named(name.as_ref()), token)
    }

    /// Adds a token that stands for this identity, whose tenant and highest priority may be other than usual.
    pub fn with_identity(mut self, identity: Identity, token: impl AsRef<str>) -> Result<Self, InvalidToken> {
        let token = token.as_ref();
        // Anything else could never arrive in a header, so it is a mistake of configuration.
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidToken(()));
        }
        self.known.insert(digest(token.as_bytes()), identity);
        Ok(self)
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there is no token, so that nobody is let in.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn identify(&self, headers: &HeaderMap) -> Result<Identity, AuthError> {
        let token = token(headers).ok_or(AuthError::missing())?;
        self.known.get(&digest(token)).cloned().ok_or(AuthError::invalid())
    }
}

impl Authenticator for BearerTokens {
    fn authenticate<'a>(
        &'a self,
        request: &'a http::request::Parts,
    ) -> Decision<'a, Result<Identity, AuthError>> {
        self.identify(&request.headers).into()
    }
}

impl fmt::Debug for BearerTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerTokens").field("len", &self.len()).finish()
    }
}

/// A token that no client could send: empty, or with a space or something other than visible ASCII in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token must be one or more visible ASCII characters without spaces")]
pub struct InvalidToken(());

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn token(headers: &HeaderMap) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let bearer = headers.get(AUTHORIZATION).map(|value| value.as_bytes()).and_then(|value| {
        let (scheme, token) = value.split_at_checked(SCHEME.len())?;
        scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
    });
    // Another scheme may belong to a proxy in front; then the key comes in the other header.
    bearer.or_else(|| headers.get("x-api-key").map(|value| value.as_bytes().trim_ascii()))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn name(header: &'static str, value: &'static str) -> Result<Option<String>, AuthError> {
        let tokens = BearerTokens::new(["s3cret", "other"]).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header, HeaderValue::from_static(value));
        tokens.identify(&headers).map(|identity| identity.name().map(str::to_owned))
    }

    #[test]
    fn both_headers_and_any_case_of_the_scheme_are_taken() {
        assert_eq!(name("authorization", "Bearer s3cret"), Ok(Some("key-1".into())));
        assert_eq!(name("authorization", "bEARER  other"), Ok(Some("key-2".into())));
        assert_eq!(name("x-api-key", "other"), Ok(Some("key-2".into())));
    }

    #[test]
    fn anything_else_is_refused() {
        assert_eq!(name("authorization", "Bearer s3cre"), Err(AuthError::invalid()));
        assert_eq!(name("authorization", "Bearer "), Err(AuthError::invalid()));
        assert_eq!(name("authorization", "Basic s3cret"), Err(AuthError::missing()));
        assert_eq!(name("authorization", "Bearers3cret"), Err(AuthError::missing()));
        assert_eq!(name("x-api-key", "s3cret s3cret"), Err(AuthError::invalid()));
        assert_eq!(name("cookie", "s3cret"), Err(AuthError::missing()));
    }

    #[test]
    fn tokens_that_could_never_match_are_refused_early() {
        for token in ["", " ", "a b", "schlüssel"] {
            assert!(BearerTokens::new([token]).is_err(), "{token:?}");
        }
    }

    #[test]
    fn no_token_shows_in_debug_output() {
        let tokens = BearerTokens::new(["s3cret"]).unwrap();
        assert!(!format!("{tokens:?}").contains("s3cret"));
    }
}
