use std::time::Duration;

use crate::retry::{Backoff, BudgetPolicy};

/// How long a request may take. `None` is without limit.
///
/// ```
/// use gateway_core::Deadlines;
/// assert_eq!(Deadlines::default().first_byte, Some(Deadlines::FIRST_BYTE));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// From sending a try to the first byte of the answer's body. After it the next runner is tried.
    pub first_byte: Option<Duration>,
    /// How long the next chunk of an answer that has begun is waited for. Counted from when it is asked for, so
    /// that a client who reads slowly is not held against the runner; and found out while the body is polled.
    pub idle: Option<Duration>,
    /// From the request's arrival to the end of its answer, tries and all. Once the answer has begun it is found
    /// out while the body is polled.
    pub total: Option<Duration>,
}

impl Deadlines {
    /// 300 s: what existing runners' gateways allow a whole non-streamed answer, prefill included.
    pub const FIRST_BYTE: Duration = Duration::from_secs(300);
    /// 120 s: far above any engine's pause between two tokens.
    pub const IDLE: Duration = Duration::from_secs(120);
    /// One hour.
    pub const TOTAL: Duration = Duration::from_secs(3600);
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { first_byte: Some(Self::FIRST_BYTE), idle: Some(Self::IDLE), total: Some(Self::TOTAL) }
    }
}

/// When a request is tried on another runner. Always before the first byte of an answer, never on a
/// runner that it was tried on already.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// On how many runners a request may *fail* (connection lost, server error, no first byte in time)
    /// before the client is told; at least 1. A request that crashes engines must not go through the whole
    /// fleet. Runners that could not be reached, or said that they are busy, do not count: those tries did
    /// no harm. The latter have a bound of their own, [`RetryPolicy::MAX_OVERLOADED`].
    pub max_failures: u32,
    /// What all requests together may spend on tries after a failure; `None` is without limit. A try that
    /// never reached its runner costs nothing.
    pub budget: Option<BudgetPolicy>,
    /// The pause before a request that failed on two runners goes to a third, and so on. The first move to
    /// another runner is at once.
    pub backoff: Backoff,
}

impl RetryPolicy {
    /// Three runners.
    pub const MAX_FAILURES: u32 = 3;
    /// Eight runners that answer 429 or 503: then the client is told so, with the last one's `Retry-After`. Each
    /// of them is left alone by other requests for a while, so the next request finds the others, and a fleet
    /// that sheds load is not sent every request once per runner.
    pub const MAX_OVERLOADED: u32 = 8;
    /// The most runners that one request looks at, for whatever reason each was passed over.
    pub const MAX_TRIES: usize = 64;
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_failures: Self::MAX_FAILURES,
            budget: Some(BudgetPolicy::default()),
            backoff: Backoff::default(),
        }
    }
}
