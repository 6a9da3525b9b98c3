//! Who may come in.

use std::collections::HashMap;
use std::fmt;

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// A token as it is kept and compared: by its hash, so that all are of one length and none is in memory.
#[derive(Clone, Copy)]
struct Hash([u8; 32]);

impl Hash {
    fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }
}

/// The tokens that let runners in. Without any, nobody comes in.
#[derive(Default)]
pub struct Tokens {
    shared: Option<Hash>,
    own: HashMap<String, Option<Hash>>,
    anonymous: bool,
}

impl Tokens {
    /// One for every runner that has none of its own. An empty one lets nobody in.
    pub fn share(&mut self, token: &str) {
        self.shared = hash(token);
    }

    /// One for this runner; the shared one does not let it in any more. An empty one lets it in never.
    pub fn own(&mut self, id: String, token: &str) {
        self.own.insert(id, hash(token));
    }

    /// Lets in every runner that has no token of its own, whatever token it sends.
    pub fn allow_anonymous(&mut self) {
        self.anonymous = true;
    }

    /// Whether `token` lets in the runner `id`. Takes the same time whatever the token is.
    pub fn admit(&self, id: &str, token: &str) -> bool {
        let own = self.own.get(id);
        let expected = own.copied().unwrap_or(self.shared);
        let equal = Hash::of(token).0.ct_eq(&expected.unwrap_or(Hash([0; 32])).0);
        let known = Choice::from(u8::from(expected.is_some()));
        let anonymous = Choice::from(u8::from(self.anonymous && own.is_none()));
        ((equal & known) | anonymous).into()
    }
}

fn hash(token: &str) -> Option<Hash> {
    (!token.is_empty()).then(|| Hash::of(token))
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("own", &self.own.len()).field("anonymous", &self.anonymous).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_in() {
        let mut tokens = Tokens::default();
        assert!(!tokens.admit("a", "") && !tokens.admit("a", "x"), "nobody, when nothing is said");
        tokens.share("all");
        tokens.own("b".to_owned(), "only-b");
        assert!(tokens.admit("a", "all") && !tokens.admit("a", "only-b") && !tokens.admit("a", ""));
        assert!(tokens.admit("b", "only-b") && !tokens.admit("b", "all"));
        tokens.allow_anonymous();
        assert!(tokens.admit("a", "whatever") && !tokens.admit("b", "whatever"));
    }

    #[test]
    fn an_empty_token_opens_nothing() {
        let mut tokens = Tokens::default();
        tokens.share("");
        tokens.own("b".to_owned(), "");
        assert!(!tokens.admit("a", "") && !tokens.admit("b", ""));
    }
}
