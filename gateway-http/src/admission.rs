//! Whether a client's request is let in, apart from who the client is.

use std::borrow::Cow;
use std::time::Duration;

use gateway_core::{Permit, RequestId, Requirements};

use crate::auth::Identity;
use crate::decision::Decision;

/// **The place where tenants' limits and quotas hang.** Asked once for every request that is for a
/// runner, after authentication and before a runner is looked for; of an inference request the body is here
/// then, of a generic one it is not.
///
/// The [`Permit`] travels with the request and is given back when the answer's body has ended, failed or
/// was dropped: a limit on requests at once needs nothing more than a semaphore.
///
/// ```
/// use std::sync::Arc;
/// use gateway_core::{Permit, RequestId, Requirements};
/// use gateway_http::{Admission, Decision, Identity, Refused};
/// use tokio::sync::Semaphore;
///
/// struct AtMost(Arc<Semaphore>);
///
/// impl Admission for AtMost {
///     fn admit<'a>(
///         &'a self,
///         _: &'a Identity,
///         _: &'a Requirements,
///         _: &'a RequestId,
///     ) -> Decision<'a, Result<Permit, Refused>> {
///         let place = self.0.clone().try_acquire_owned();
///         place.map(Permit::holding).map_err(|_| Refused::too_many("Too many requests at once.")).into()
///     }
/// }
/// ```
pub trait Admission: Send + Sync + 'static {
    /// Lets a request in with whatever it holds of its tenant's limits, or refuses it.
    fn admit<'a>(
        &'a self,
        identity: &'a Identity,
        requirements: &'a Requirements,
        request_id: &'a RequestId,
    ) -> Decision<'a, Result<Permit, Refused>>;
}

/// Why a request was not let in. The client reads the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub(crate) kind: RefusedKind,
    pub(crate) message: Cow<'static, str>,
    pub(crate) retry_after: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusedKind {
    TooMany,
    QuotaUsedUp,
    Forbidden,
}

impl Refused {
    fn new(kind: RefusedKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }

    /// Too many requests or tokens in a time, or at once: 429, `rate_limit_exceeded`.
    pub fn too_many(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusedKind::TooMany, message)
    }

    /// What was granted is used up: 429, `insufficient_quota`.
    pub fn quota_used_up(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusedKind::QuotaUsedUp, message)
    }

    /// This client may not do this: 403.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(RefusedKind::Forbidden, message)
    }

    /// Says when it makes sense to try again. Told to the client in whole seconds, rounded up.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}
