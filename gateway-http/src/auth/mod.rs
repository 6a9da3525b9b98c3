//! Who sends a request.

mod access;
mod bearer;

use std::fmt;
use std::sync::Arc;

pub(crate) use access::Access;
pub use bearer::{BearerTokens, InvalidToken};
use gateway_core::{Priority, Tenant};

use crate::decision::Decision;

/// Says who sends a request. [`BearerTokens`] is built in.
///
/// ```
/// use gateway_http::{AuthError, Authenticator, Decision, Identity};
///
/// /// Trusts the name that a proxy in front has written into a header.
/// struct Proxied;
///
/// impl Authenticator for Proxied {
///     fn authenticate<'a>(
///         &'a self,
///         request: &'a http::request::Parts,
///     ) -> Decision<'a, Result<Identity, AuthError>> {
///         let name = request.headers.get("x-user").and_then(|name| name.to_str().ok());
///         name.map(Identity::named).ok_or(AuthError::missing()).into()
///     }
/// }
/// ```
pub trait Authenticator: Send + Sync + 'static {
    /// Looks at a request's head, its extensions included. Called once for every request to a route that
    /// is not open to everybody.
    fn authenticate<'a>(
        &'a self,
        request: &'a http::request::Parts,
    ) -> Decision<'a, Result<Identity, AuthError>>;
}

/// Who sends a request, as [`Admission`](crate::Admission) sees it. Cheap to clone.
///
/// ```
/// use gateway_core::{Priority, Tenant};
/// use gateway_http::Identity;
/// let key = Identity::named("key-7").of_tenant(Tenant::new("team-a")?).up_to(Priority::High);
/// assert_eq!(key.tenant().map(Tenant::as_str), Some("team-a"));
/// # Ok::<(), gateway_core::InvalidName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Identity {
    name: Option<Arc<str>>,
    tenant: Option<Tenant>,
    max_priority: Priority,
}

impl Identity {
    /// Somebody of whom nothing is known.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Somebody with a name. It may appear in logs, so it must not be the key itself.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        Self { tenant: Tenant::new(&name).ok(), name: Some(name), max_priority: Priority::default() }
    }

    /// Says on whose account the requests are: tenants take turns when there is a queue, and what they call
    /// their conversations is kept apart. Unless said, everybody with a name is a tenant of that name, if it
    /// can be a [`Tenant`]'s; all others share one.
    pub fn of_tenant(mut self, tenant: Tenant) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// Says how urgent its requests may be; [`Priority::Normal`] unless said. Whoever asks for more gets
    /// this.
    pub fn up_to(mut self, priority: Priority) -> Self {
        self.max_priority = priority;
        self
    }

    /// The name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// On whose account its requests are.
    pub fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    /// The most urgent that its requests may be.
    pub fn max_priority(&self) -> Priority {
        self.max_priority
    }
}

/// Why nobody could say who sends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthError(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Missing,
    Invalid,
    Forbidden,
    Unavailable,
}

impl AuthError {
    /// The request has no credentials: 401.
    pub fn missing() -> Self {
        Self(Kind::Missing)
    }

    /// The credentials are wrong: 401.
    pub fn invalid() -> Self {
        Self(Kind::Invalid)
    }

    /// The credentials are right, but not for this: 403.
    pub fn forbidden() -> Self {
        Self(Kind::Forbidden)
    }

    /// Whoever knows the credentials cannot be asked: 503. An outage must not look like a wrong key.
    pub fn unavailable() -> Self {
        Self(Kind::Unavailable)
    }

    /// Whether there were no credentials.
    pub fn is_missing(&self) -> bool {
        self.0 == Kind::Missing
    }

    /// Whether the credentials are right, but not for this.
    pub fn is_forbidden(&self) -> bool {
        self.0 == Kind::Forbidden
    }

    /// Whether the credentials could not be checked.
    pub fn is_unavailable(&self) -> bool {
        self.0 == Kind::Unavailable
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Missing => {
                "No API key was given. Send one as `Authorization: Bearer KEY` or as `X-API-Key: KEY`."
            }
            Kind::Invalid => "The API key is wrong. Ask whoever runs this gateway for one that is valid.",
            Kind::Forbidden => "This API key does not allow that.",
            Kind::Unavailable => "API keys cannot be checked at the moment. Try again.",
        })
    }
}

impl std::error::Error for AuthError {}
