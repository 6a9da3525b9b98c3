//! Whether a runner deserves requests, for reasons other than what it says of itself.

use std::sync::atomic::{AtomicU32, Ordering};

/// How little a runner should be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reluctance {
    /// As much as any other.
    None,
    /// Less than others: it is warming up or was ejected. Used when nobody else is.
    Some,
    /// Only if there is nobody else at all: it could not be reached, or asked to be left alone for a while.
    Much,
}

/// One word that is 0 while all is well, so that a pick pays one read.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    word: AtomicU32,
}

impl Standing {
    #[inline]
    pub(crate) fn reluctance(&self) -> Reluctance {
        match self.word.load(Ordering::Relaxed) {
            0 => Reluctance::None,
            _ => Reluctance::Some,
        }
    }
}
