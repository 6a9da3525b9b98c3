//! A tenant's share of limits, held as long as the request lives.

use std::fmt;

/// Whatever a request holds besides its [`Reservation`](crate::Reservation): a place under a tenant's
/// concurrency limit, a share of a quota. It travels with the response body and is given back with it.
///
/// **This is where tenants' limits and quotas hang.** The gateway makes the permit when it admits a
/// request and never looks into it; dropping it is giving it back.
///
/// ```
/// use std::sync::Arc;
/// use gateway_core::Permit;
/// let places = Arc::new(tokio::sync::Semaphore::new(1));
/// let permit = Permit::holding(places.clone().try_acquire_owned().unwrap());
/// assert_eq!(places.available_permits(), 0);
/// drop(permit);
/// assert_eq!(places.available_permits(), 1);
/// ```
#[must_use = "dropping a permit gives it back"]
#[derive(Default)]
pub struct Permit(Option<Box<dyn Held>>);

trait Held: Send + Sync {}
impl<T: Send + Sync> Held for T {}

impl Permit {
    /// A permit that holds nothing.
    pub fn free() -> Self {
        Self(None)
    }

    /// A permit that is given back by dropping `guard`.
    pub fn holding(guard: impl Send + Sync + 'static) -> Self {
        Self(Some(Box::new(guard)))
    }

    /// One permit that holds this and `other`, given back together.
    pub fn and(self, other: Permit) -> Self {
        match (self.0, other.0) {
            (None, other) => Self(other),
            (this, None) => Self(this),
            (this, other) => Self::holding((Self(this), Self(other))),
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit({})", if self.0.is_some() { "held" } else { "free" })
    }
}
