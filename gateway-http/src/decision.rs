use std::fmt;
use std::pin::Pin;

/// An answer that is here already, or one that has to be waited for.
///
/// What most implementations of [`Authenticator`](crate::Authenticator) and
/// [`Admission`](crate::Admission) say is known at once and costs no allocation; one that asks a database
/// can take its time.
///
/// ```
/// use gateway_http::Decision;
/// let at_once: Decision<'_, u32> = 7.into();
/// let later = Decision::later(async { 7 });
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// assert_eq!(at_once.get().await, later.get().await);
/// # });
/// ```
pub enum Decision<'a, T> {
    /// Here it is.
    Now(T),
    /// It comes. Dropped when the client goes away.
    Later(Pin<Box<dyn Future<Output = T> + Send + 'a>>),
}

impl<'a, T> Decision<'a, T> {
    /// A decision that has to be waited for.
    pub fn later(decide: impl Future<Output = T> + Send + 'a) -> Self {
        Self::Later(Box::pin(decide))
    }

    /// Waits for it, if need be. Cancel safe if the future inside is.
    pub async fn get(self) -> T {
        match self {
            Self::Now(decision) => decision,
            Self::Later(decide) => decide.await,
        }
    }
}

impl<T> From<T> for Decision<'_, T> {
    fn from(decision: T) -> Self {
        Self::Now(decision)
    }
}

impl<T: fmt::Debug> fmt::Debug for Decision<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(decision) => f.debug_tuple("Now").field(decision).finish(),
            Self::Later(_) => f.write_str("Later"),
        }
    }
}
