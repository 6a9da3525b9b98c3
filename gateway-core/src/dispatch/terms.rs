use super::limits::Deadlines;

/// How one request wants to be carried, where that is not how all are.
///
/// ```
/// use gateway_core::Terms;
/// let once = Terms { repeatable: false, ..Terms::default() };
/// assert!(!once.verbatim);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Whether a runner may be asked although another may have done the work already. If not, the request
    /// goes to another runner only if the last one saw nothing of it, or declined it (429, 501, 503), and
    /// links find [`NotRepeatable`] among its extensions.
    pub repeatable: bool,
    /// Whether the answer is the client's affair alone: its head is passed on at once instead of with the
    /// first byte of its body, what cannot be tried again goes through as it is, however long, and a 401 or
    /// 403 is about the client instead of about the gateway's own credentials.
    pub verbatim: bool,
    /// How long it may take; what the dispatcher says unless set.
    pub deadlines: Option<Deadlines>,
}

/// Found among the extensions of a [`LinkRequest`](crate::LinkRequest) that must not reach its runner twice: a
/// link that replaces a connection which has died sends it again only if nothing of it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotRepeatable;

impl Default for Terms {
    fn default() -> Self {
        Self { repeatable: true, verbatim: false, deadlines: None }
    }
}
