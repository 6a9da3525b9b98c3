use std::time::Duration;

/// How many requests may wait for a slot, and how long.
///
/// ```
/// use std::time::Duration;
/// use gateway_core::QueuePolicy;
/// let policy = QueuePolicy { patience: Duration::from_secs(5), ..QueuePolicy::default() };
/// assert_eq!(policy.max_waiting, 1024);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Most waiters in all. 0 switches the queue off: what finds no slot is refused at once.
    pub max_waiting: usize,
    /// Most waiters of one tenant, so that one alone cannot fill the queue. Requests without a tenant
    /// count as those of one tenant.
    pub max_per_tenant: usize,
    /// How long a request waits that does not say itself. Zero: it looks once more and goes.
    pub patience: Duration,
    /// After each such time a waiter rises by one class, so that no class starves. Zero makes all classes
    /// alike; [`Duration::MAX`] makes them strict, and then the better may starve the worse.
    pub ageing: Duration,
    /// How often each line looks again although nothing was heard of a free slot, for what changes without a
    /// word: a breaker that lets somebody through again. However many wait, each line does so once.
    /// [`Duration::MAX`]: never.
    pub look: Duration,
}

impl QueuePolicy {
    /// 1,024 waiters: as many as are served within [`QueuePolicy::PATIENCE`] where a slot is freed every
    /// 30 ms. In a slower fleet those behind would only wait to be told that they waited in vain.
    pub const MAX_WAITING: usize = 1024;
    /// Half of all places.
    pub const MAX_PER_TENANT: usize = Self::MAX_WAITING / 2;
    /// 30 s: what a person waits at most for the first word, and well below the 60 s after which common
    /// proxies give up.
    pub const PATIENCE: Duration = Duration::from_secs(30);
    /// 10 s: a batch request passes for an interactive one after 20 s, before its patience ends.
    pub const AGEING: Duration = Duration::from_secs(10);

    /// 100 ms: short against the time to a first token, long against the cost of a pick.
    pub const LOOK: Duration = Duration::from_millis(100);
    /// How many waiters with special wants are asked in vain, in each line, when the fleet changes: each costs
    /// a pick on the thread that changes it. Those behind them are asked at the next [look](QueuePolicy::look),
    /// and at each look again so many: of 1,024, every one within 1.6 s.
    pub const VAIN: usize = 64;

    /// No queue.
    pub const OFF: Self = Self {
        max_waiting: 0,
        max_per_tenant: Self::MAX_PER_TENANT,
        patience: Self::PATIENCE,
        ageing: Self::AGEING,
        look: Self::LOOK,
    };
}

impl Default for QueuePolicy {
    fn default() -> Self {
        Self { max_waiting: Self::MAX_WAITING, ..Self::OFF }
    }
}
