//! Everything about the waiters that is behind the lock. Nothing here calls anything that could come back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::order::{Arrival, Full, LaneId, Left, Round, ServiceOrder, Ticket};
use super::pace::Pace;
use super::tour::Tour;
use super::{LaneReport, Priority, QueuePolicy, QueueReport};
use crate::names::ModelId;
use crate::runner::Runner;

/// Somebody of each lane looks again from time to time: for the lane, not each for itself.
#[derive(Debug)]
struct Beat {
    watcher: Option<Ticket>,
    looked: Instant,
    /// Wakes one of the lane, to take over the watch or the work.
    call: Arc<Notify>,
    pace: Pace,
    tour: Tour,
}

/// One who has a seat.
#[derive(Debug)]
pub(super) struct Seated {
    pub(super) ticket: Ticket,
    pub(super) lane: LaneId,
    pub(super) call: Arc<Notify>,
    /// When to look.
    pub(super) look: Option<Instant>,
}

/// One who has left its seat, and who is to be woken once the lock is released.
#[derive(Debug)]
#[must_use = "somebody may have to be woken"]
pub(super) struct Gone<S> {
    pub(super) seat: S,
    heir: Option<Arc<Notify>>,
}

impl<S> Gone<S> {
    /// Call it without the lock: waking runs the executor's code.
    pub(super) fn wake_heir(&mut self) {
        if let Some(heir) = self.heir.take() {
            heir.notify_one();
        }
    }
}

/// Lanes in which something may have become free.
#[derive(Debug, Default)]
pub(super) struct Stirred {
    pub(super) lanes: BTreeMap<LaneId, Cause>,
    /// Whether to ask the plain ones without end, and to send away those without hope.
    pub(super) thorough: bool,
}

/// For whom in a lane something may have become free. The first of the plain ones is asked in any case; this
/// spares the special ones a pick each.
#[derive(Debug, Default)]
pub(super) struct Cause {
    /// For anybody.
    pub(super) any: bool,
    /// For whom these runners can serve.
    pub(super) freed: Vec<Arc<Runner>>,
    /// For these special ones, who have just come: what was free before was offered to all others.
    pub(super) came: Vec<Ticket>,
    /// Plain ones have just come.
    pub(super) plain_came: bool,
    /// For these special ones something may have become free without a word.
    pub(super) due: HashSet<Ticket>,
}

impl Cause {
    /// Most that are named; with more, everybody is asked.
    const NAMED: usize = 16;

    pub(super) fn add(&mut self, other: Self) {
        self.any |= other.any;
        self.plain_came |= other.plain_came;
        self.due.extend(other.due);
        self.freed.extend(other.freed);
        self.came.extend(other.came);
        self.any |= self.freed.len() > Self::NAMED || self.came.len() > Self::NAMED;
        if self.any {
            self.freed.clear();
            self.came.clear();
        }
    }

    /// Whether nothing can have become free but by the runners that are named: what others have free was
    /// offered to all who wait.
    pub(super) fn is_named(&self) -> bool {
        !self.any && !self.plain_came
    }
}

#[derive(Debug)]
pub(super) struct Room<S> {
    pub(super) order: ServiceOrder<S>,
    beats: HashMap<LaneId, Beat>,
    look: Duration,
    pace: Pace,
    stirred: Stirred,
    /// The thread that is inside the picker.
    picking: Option<ThreadId>,
}

impl<S> Room<S> {
    /// After so many looks those without the watch see whether it is kept.
    const RELIEF: u32 = 10;

    pub(super) fn new(policy: QueuePolicy) -> Self {
        Self {
            order: ServiceOrder::new(policy),
            beats: HashMap::new(),
            look: policy.look,
            pace: Pace::default(),
            stirred: Stirred::default(),
            picking: None,
        }
    }

    pub(super) fn enter(&mut self, arrival: Arrival, now: Instant, seat: S) -> Result<Seated, Full> {
        let special = arrival.special;
        let (ticket, lane) = self.order.enter(arrival, now, seat)?;
        self.pace.waits(now);
        let beat = self.beats.entry(lane).or_insert_with(|| Beat {
            watcher: None,
            looked: now,
            call: Arc::new(Notify::new()),
            pace: Pace::default(),
            tour: Tour::default(),
        });
        beat.pace.waits(now);
        let call = beat.call.clone();
        let came = if special { vec![ticket] } else { Vec::new() };
        if special {
            beat.tour.came(ticket);
        }
        let cause = Cause { came, plain_came: !special, ..Cause::default() };
        self.stirred.lanes.entry(lane).or_default().add(cause);
        let look = self.watch(lane, ticket, now);
        Ok(Seated { ticket, lane, call, look })
    }

    /// Takes over the watch of a lane if nobody has it. When to look: as its watch, or after a while, lest
    /// the one that has the watch is not polled.
    pub(super) fn watch(&mut self, lane: LaneId, ticket: Ticket, now: Instant) -> Option<Instant> {
        let beat = self.beats.get_mut(&lane)?;
        let is_mine = *beat.watcher.get_or_insert(ticket) == ticket;
        if is_mine { beat.looked.checked_add(self.look) } else { self.relief(now) }
    }

    /// Has this lane asked with the next round, if that is due: the plain ones, and some of the special ones.
    /// Whether it is, and when to look next.
    pub(super) fn look(&mut self, lane: LaneId, ticket: Ticket, now: Instant) -> (bool, Option<Instant>) {
        let Some(beat) = self.beats.get_mut(&lane) else { return (false, None) };
        let overdue = now.saturating_duration_since(beat.looked) >= self.look.saturating_mul(2);
        if beat.watcher != Some(ticket) && !overdue {
            return (false, self.relief(now));
        }
        beat.watcher = Some(ticket);
        beat.looked = now;
        let due = beat.tour.due(QueuePolicy::VAIN).collect();
        self.stirred.lanes.entry(lane).or_default().add(Cause { due, ..Cause::default() });
        self.stirred.thorough = true;
        (true, now.checked_add(self.look))
    }

    fn relief(&self, now: Instant) -> Option<Instant> {
        now.checked_add(self.look.saturating_mul(Self::RELIEF))
    }

    pub(super) fn leave(&mut self, ticket: Ticket) -> Option<Gone<S>> {
        let left = self.order.leave(ticket)?;
        Some(self.gone(ticket, left))
    }

    pub(super) fn serve(&mut self, ticket: Ticket, now: Instant) -> Option<Gone<S>> {
        let left = self.order.serve(ticket)?;
        self.pace.handed(now, !self.order.is_empty());
        let others = self.order.waiting(left.lane).0 > 0;
        if let Some(beat) = self.beats.get_mut(&left.lane) {
            beat.pace.handed(now, others);
        }
        Some(self.gone(ticket, left))
    }

    fn gone(&mut self, ticket: Ticket, left: Left<S>) -> Gone<S> {
        if self.order.is_empty() {
            self.pace.rests();
        }
        let mut heir = None;
        if self.order.waiting(left.lane).0 == 0 {
            self.beats.remove(&left.lane);
        } else if let Some(beat) = self.beats.get_mut(&left.lane) {
            beat.tour.gone(ticket);
            if beat.watcher == Some(ticket) {
                beat.watcher = None;
                heir = Some(beat.call.clone());
            }
        }
        Gone { seat: left.what, heir }
    }

    /// Something may have become free for these lanes: by this runner, or for anybody. Whether that is news:
    /// what a pick takes and gives back was free before it. To look again for that would be to look for
    /// ever.
    pub(super) fn stir(&mut self, lanes: Vec<LaneId>, freed: Option<&Arc<Runner>>, me: ThreadId) -> bool {
        if self.picking == Some(me) {
            return false;
        }
        for lane in lanes {
            let freed_here = freed.cloned().into_iter().collect();
            let cause = Cause { any: freed.is_none(), freed: freed_here, ..Cause::default() };
            self.stirred.lanes.entry(lane).or_default().add(cause);
        }
        true
    }

    /// Begins to hand out slots in the lanes that were stirred.
    pub(super) fn begin(&mut self, now: Instant) -> (Round, Stirred) {
        let stirred = std::mem::take(&mut self.stirred);
        let vain = if stirred.thorough { usize::MAX } else { QueuePolicy::VAIN };
        (self.order.round(stirred.lanes.keys().copied(), now, vain), stirred)
    }

    /// For whom this thread is to pick next, until [`Room::picked`].
    pub(super) fn next(&mut self, round: &mut Round, me: ThreadId) -> Option<(Ticket, &S)> {
        self.picking = None;
        let next = self.order.next(round)?;
        self.picking = Some(me);
        Some(next)
    }

    pub(super) fn picked(&mut self) {
        self.picking = None;
    }

    /// A special one was asked in vain.
    pub(super) fn asked(&mut self, lane: LaneId, ticket: Ticket) {
        if let Some(beat) = self.beats.get_mut(&lane) {
            beat.tour.asked(ticket);
        }
    }

    /// Somebody to do what is left to do.
    pub(super) fn deputy(&self) -> Option<Arc<Notify>> {
        let beat = self.stirred.lanes.keys().find_map(|lane| self.beats.get(lane))?;
        Some(beat.call.clone())
    }

    /// When a request for this model that comes back finds that those who wait now have been served.
    pub(super) fn retry_after(&self, model: &Option<ModelId>, now: Instant) -> Duration {
        let lane = self.order.lane(model);
        let beat = lane.and_then(|lane| self.beats.get(&lane)).filter(|beat| beat.pace.is_known());
        match (lane, beat) {
            (Some(lane), Some(beat)) => beat.pace.retry_after(self.order.waiting(lane).0, now),
            _ => self.pace.retry_after(self.order.len().max(1), now),
        }
    }

    pub(super) fn report(&self, max_waiting: usize, now: Instant) -> QueueReport {
        let mut oldest: HashMap<LaneId, Instant> = HashMap::new();
        for (lane, entered) in self.order.entered() {
            oldest.entry(lane).and_modify(|first| *first = entered.min(*first)).or_insert(entered);
        }
        let lane = |(id, model): (LaneId, Option<&ModelId>)| LaneReport {
            model: model.cloned(),
            waiting: self.order.waiting(id).0,
            oldest: oldest.get(&id).map_or(Duration::ZERO, |first| now.saturating_duration_since(*first)),
            slots_per_s: self.beats.get(&id).and_then(|beat| beat.pace.rate(now)),
        };
        let mut lanes: Vec<_> = self.order.lanes().map(lane).collect();
        lanes.sort_by(|a, b| b.waiting.cmp(&a.waiting).then_with(|| a.model.cmp(&b.model)));
        let more_lanes = lanes.len().saturating_sub(QueueReport::MAX_LANES);
        lanes.truncate(QueueReport::MAX_LANES);
        QueueReport {
            waiting: self.order.len(),
            max_waiting,
            by_priority: Priority::ALL.map(|priority| self.order.asked(priority)),
            lanes,
            more_lanes,
        }
    }
}
