//! Who of the waiters is next. Pure: it holds what it is given, is told the time, and does nothing by itself.

mod lane;
mod round;

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use super::{Priority, QueuePolicy, Tenant};
use crate::names::ModelId;
use lane::{Account, Lane, Turn};
pub use round::Round;

/// A waiter. Never given out twice by one order; a later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Ticket(u64);

/// The waiters for one model. Ends when the last of them goes; the next gets a lane of another id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(u64);

/// Somebody who comes to wait.
#[derive(Debug, Clone, Default)]
pub struct Arrival {
    /// For which model. A waiter for one never stands in the way of a waiter for another.
    pub model: Option<ModelId>,
    /// On whose account.
    pub tenant: Option<Tenant>,
    /// How urgent.
    pub priority: Priority,
    /// Whether it wants anything else than all others for the same model. What one plain waiter cannot
    /// use, no other plain one can; a special one is asked for itself.
    pub special: bool,
}

/// Why somebody cannot wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Every place is taken.
    #[error("the queue is full")]
    Queue,
    /// The tenant has as many waiting as one may have.
    #[error("the tenant has too many requests waiting")]
    Tenant,
}

/// A waiter that waits no more.
#[derive(Debug)]
pub struct Left<T> {
    /// What was given when it came.
    pub what: T,
    /// Where it waited.
    pub lane: LaneId,
    /// The class that it came with.
    pub priority: Priority,
    /// When it came.
    pub entered: Instant,
}

#[derive(Debug)]
struct Waiter<T> {
    what: T,
    lane: LaneId,
    account: Account,
    special: bool,
    asked: Priority,
    class: Priority,
    entered: Instant,
    rises: Option<Instant>,
}

/// The order of service: a better class first, in a class one request per model and per tenant in turn, a
/// tenant's own as they came.
///
/// - **Classes**: a waiter rises by one class after each [`QueuePolicy::ageing`], so none starves.
/// - **Fair**: of tenants that keep waiters in one class of one lane, none is served twice before each other
///   was served once. The same goes for lanes that could use the same runner.
/// - **Bounded**: [`QueuePolicy::max_waiting`] in all, [`QueuePolicy::max_per_tenant`] of one tenant.
///
/// Coming, leaving and being served cost `O(log n)`.
///
/// ```
/// use gateway_core::{Arrival, Priority, QueuePolicy, ServiceOrder};
/// use tokio::time::Instant;
///
/// let now = Instant::now();
/// let mut order = ServiceOrder::new(QueuePolicy::default());
/// let (_, lane) = order.enter(Arrival { priority: Priority::Low, ..Arrival::default() }, now, "batch")?;
/// order.enter(Arrival::default(), now, "chat")?;
///
/// let mut round = order.round([lane], now, usize::MAX);
/// let (ticket, next) = order.next(&mut round).expect("two wait");
/// assert_eq!(*next, "chat");
/// order.serve(ticket);
/// assert_eq!(order.next(&mut round).map(|(_, next)| *next), Some("batch"));
/// # Ok::<(), gateway_core::Full>(())
/// ```
#[derive(Debug)]
pub struct ServiceOrder<T> {
    policy: QueuePolicy,
    waiters: HashMap<Ticket, Waiter<T>>,
    lanes: HashMap<LaneId, Lane>,
    by_model: HashMap<Option<ModelId>, LaneId>,
    accounts: HashMap<Account, usize>,
    /// When who rises.
    rising: BTreeSet<(Instant, Ticket)>,
    asked: [usize; 3],
    /// The last ticket, lane and turn given out.
    last: u64,
}

impl<T> ServiceOrder<T> {
    /// An empty one. How patient waiters are is not its affair.
    pub fn new(policy: QueuePolicy) -> Self {
        Self {
            policy,
            waiters: HashMap::new(),
            lanes: HashMap::new(),
            by_model: HashMap::new(),
            accounts: HashMap::new(),
            rising: BTreeSet::new(),
            asked: [0; 3],
            last: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Lets somebody in, at the end of its tenant's line.
    pub fn enter(&mut self, arrival: Arrival, now: Instant, what: T) -> Result<(Ticket, LaneId), Full> {
        let Arrival { model, tenant, priority, special } = arrival;
        if self.waiters.len() >= self.policy.max_waiting {
            return Err(Full::Queue);
        }
        let waiting = self.accounts.get(&tenant).copied().unwrap_or(0);
        if waiting >= self.policy.max_per_tenant {
            return Err(Full::Tenant);
        }
        self.accounts.insert(tenant.clone(), waiting + 1);
        self.asked[priority.place()] += 1;
        let (ticket, turn) = (Ticket(self.number()), self.number());
        let id = self.lane_for(model);
        let rises = self.rises_after(priority, now);
        self.rising.extend(rises.map(|at| (at, ticket)));
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.count_in(special);
            lane.class_mut(priority).add(&tenant, ticket, special, turn);
        }
        let (asked, class) = (priority, priority);
        let waiter = Waiter { what, lane: id, account: tenant, special, asked, class, entered: now, rises };
        self.waiters.insert(ticket, waiter);
        Ok((ticket, id))
    }

    fn lane_for(&mut self, model: Option<ModelId>) -> LaneId {
        if let Some(id) = self.by_model.get(&model) {
            return *id;
        }
        let id = LaneId(self.number());
        self.by_model.insert(model.clone(), id);
        // Behind those that wait already: lanes that come and go would else always be first.
        let turn = self.number();
        self.lanes.insert(id, Lane::new(model, turn));
        id
    }

    fn rises_after(&self, class: Priority, since: Instant) -> Option<Instant> {
        class.raised().and_then(|_| since.checked_add(self.policy.ageing))
    }

    /// Takes a waiter out that goes unserved. `None` if it waits no more.
    pub fn leave(&mut self, ticket: Ticket) -> Option<Left<T>> {
        let waiter = self.waiters.remove(&ticket)?;
        if let Some(at) = waiter.rises {
            self.rising.remove(&(at, ticket));
        }
        if let Some(waiting) = self.accounts.get_mut(&waiter.account) {
            *waiting -= 1;
            if *waiting == 0 {
                self.accounts.remove(&waiter.account);
            }
        }
        self.asked[waiter.asked.place()] -= 1;
        if let Some(lane) = self.lanes.get_mut(&waiter.lane) {
            lane.class_mut(waiter.class).remove(&waiter.account, ticket, waiter.special);
            lane.count_out(waiter.special);
            if lane.waiting() == 0 {
                self.by_model.remove(&lane.model);
                self.lanes.remove(&waiter.lane);
            }
        }
        let Waiter { what, lane, asked: priority, entered, .. } = waiter;
        Some(Left { what, lane, priority, entered })
    }

    /// Takes a waiter out that is served: its tenant and its lane have had their turn. `None` if it waits no
    /// more.
    pub fn serve(&mut self, ticket: Ticket) -> Option<Left<T>> {
        let turn: Turn = self.number();
        let waiter = self.waiters.get(&ticket)?;
        let class = self.lanes.get_mut(&waiter.lane)?.class_mut(waiter.class);
        class.turn = turn;
        class.send_back(&waiter.account, turn);
        self.leave(ticket)
    }

    /// Begins a walk through these lanes in the order of service as it is now. In each lane, special waiters
    /// are asked until so many of them got nothing.
    pub fn round(&mut self, lanes: impl IntoIterator<Item = LaneId>, now: Instant, vain: usize) -> Round {
        self.raise(now);
        Round::new(lanes.into_iter(), vain)
    }

    /// Who is next in this round. The caller then serves it, tells the round that it was
    /// [refused](Round::refused) or is to be [passed over](Round::pass_over), or finds that it has left; without any
    /// of these it is named again.
    pub fn next(&self, round: &mut Round) -> Option<(Ticket, &T)> {
        let ticket = round.next(self)?;
        let waiter = self.waiters.get(&ticket)?;
        Some((ticket, &waiter.what))
    }

    fn raise(&mut self, now: Instant) {
        while let Some(&(at, ticket)) = self.rising.first() {
            if at > now {
                return;
            }
            self.rising.pop_first();
            let turn = self.number();
            let ageing = self.policy.ageing;
            let Some(waiter) = self.waiters.get_mut(&ticket) else { continue };
            let (Some(class), Some(lane)) = (waiter.class.raised(), self.lanes.get_mut(&waiter.lane)) else {
                continue;
            };
            lane.class_mut(waiter.class).remove(&waiter.account, ticket, waiter.special);
            lane.class_mut(class).add(&waiter.account, ticket, waiter.special, turn);
            waiter.class = class;
            waiter.rises = class.raised().and_then(|_| at.checked_add(ageing));
            self.rising.extend(waiter.rises.map(|at| (at, ticket)));
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// How many wait that came with this class, whatever they have risen to.
    pub fn asked(&self, priority: Priority) -> usize {
        self.asked[priority.place()]
    }

    /// The lane for a model, if anybody waits for it.
    pub fn lane(&self, model: &Option<ModelId>) -> Option<LaneId> {
        self.by_model.get(model).copied()
    }

    /// Every lane, with its model. In no order.
    pub fn lanes(&self) -> impl Iterator<Item = (LaneId, Option<&ModelId>)> {
        self.lanes.iter().map(|(id, lane)| (*id, lane.model.as_ref()))
    }

    /// How many wait in a lane, and how many of these are plain.
    pub fn waiting(&self, lane: LaneId) -> (usize, usize) {
        self.lanes.get(&lane).map_or((0, 0), |lane| (lane.waiting(), lane.plain()))
    }

    /// Every waiter's lane and when it came. In no order.
    pub fn entered(&self) -> impl Iterator<Item = (LaneId, Instant)> {
        self.waiters.values().map(|waiter| (waiter.lane, waiter.entered))
    }
}
