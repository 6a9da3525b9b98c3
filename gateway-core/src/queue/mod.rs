//! Where a request waits while every runner that could serve it is full.
//!
//! [`AdmissionQueue`] lets requests wait and hands them reservations; [`ServiceOrder`] says who is next. What
//! is tricky is small and has a file of its own: `baton` (one at a time hands out, nobody waits to do so)
//! is checked in every interleaving by `tests/queue_interleavings.rs`.

mod admission;
mod baton;
mod error;
mod order;
mod pace;
mod picker;
mod policy;
mod report;
mod room;
mod tour;
mod wait;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use admission::{AdmissionQueue, Waiter};
pub use error::{QueueError, QueueErrorKind};
pub use order::{Arrival, Full, LaneId, Left, Round, ServiceOrder, Ticket};
pub use picker::Picker;
pub use policy::QueuePolicy;
pub use report::{LaneReport, QueueReport, WaitEnd, Waited};

use crate::names::{InvalidName, check};

/// Named here so that a test can put loom's types in their place.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU8, Ordering};
}

/// How urgent a request is. A better class is served first; who waits long rises, see
/// [`QueuePolicy::ageing`].
///
/// The best class is the smallest: `Priority::High < Priority::Low`, so that sorting gives the order of
/// service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Somebody looks at the screen and waits.
    High,
    /// What is not said to be anything else.
    #[default]
    Normal,
    /// Batches and background work.
    Low,
}

impl Priority {
    /// Every class, best first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The word for it in headers, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// The next better class, if there is one.
    pub fn raised(self) -> Option<Self> {
        match self {
            Self::High => None,
            Self::Normal => Some(Self::High),
            Self::Low => Some(Self::Normal),
        }
    }

    fn place(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no [`Priority`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown priority: say `high`, `normal` or `low`")]
pub struct UnknownPriority;

impl FromStr for Priority {
    type Err = UnknownPriority;

    /// Reads [`Priority::as_str`], in whatever case.
    ///
    /// ```
    /// use gateway_core::Priority;
    /// assert_eq!("Low".parse(), Ok(Priority::Low));
    /// assert!("urgent".parse::<Priority>().is_err());
    /// ```
    fn from_str(word: &str) -> Result<Self, UnknownPriority> {
        Self::ALL.into_iter().find(|class| class.as_str().eq_ignore_ascii_case(word)).ok_or(UnknownPriority)
    }
}

/// On whose account a request is. Cheap to clone. Never a secret: it is shown to admins.
///
/// ```
/// use gateway_core::Tenant;
/// let tenant = Tenant::new("team-a")?;
/// assert_eq!(tenant.as_str(), "team-a");
/// assert!(Tenant::new("").is_err());
/// # Ok::<(), gateway_core::InvalidName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// Longest name that is accepted, in bytes: names travel in logs and metric labels.
    pub const MAX_LEN: usize = 256;

    /// Checks and wraps a name: not empty, at most [`Tenant::MAX_LEN`] bytes, no control characters.
    pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidName> {
        check("Tenant", name.as_ref(), Self::MAX_LEN)?;
        Ok(Self(name.as_ref().into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
