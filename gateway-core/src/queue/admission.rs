//! The queue itself: lets requests wait, and hands them what is freed.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::baton::{Baton, Rung};
use super::order::{Arrival, Round, Ticket};
use super::room::{Cause, Gone, Room, Seated, Stirred};
use super::wait::{Place, Who};
use super::{Picker, Priority, QueueError, QueueErrorKind, QueuePolicy, QueueReport, Tenant, Waited};
use crate::bell::{Bell, Listener};
use crate::dispatch::Observer;
use crate::names::ModelId;
use crate::runner::Runner;

/// Who wants to wait, and for what.
#[derive(Debug, Clone)]
pub struct Waiter<W> {
    /// What the [`Picker`] is asked for.
    pub wants: W,
    /// In which line: those who wait for different models do not block each other.
    pub model: Option<ModelId>,
    /// Whether it wants anything else than all others in that line. Of plain waiters only the first is asked:
    /// if all is taken for one, it is for the others. Special ones are asked one by one. A request that needs
    /// more than a model, or that was tried already, is special.
    pub special: bool,
    /// On whose account.
    pub tenant: Option<Tenant>,
    /// How urgent.
    pub priority: Priority,
    /// How long it waits; [`QueuePolicy::patience`] if it does not say.
    pub patience: Option<Duration>,
    /// When its time is up in any case.
    pub until: Option<Instant>,
}

impl<W> Waiter<W> {
    /// One who waits for a model as all do.
    pub fn new(wants: W, model: Option<ModelId>) -> Self {
        Self {
            wants,
            model,
            special: false,
            tenant: None,
            priority: Priority::default(),
            patience: None,
            until: None,
        }
    }
}

/// What a waiter is handed: a choice, or that there is nothing to wait for.
pub(super) type Handed<P> = Result<<P as Picker>::Choice, Hopeless>;

#[derive(Debug, Clone, Copy)]
pub(super) struct Hopeless;

pub(super) struct Seat<P: Picker> {
    wants: Arc<P::Wants>,
    hand: oneshot::Sender<Handed<P>>,
}

/// Where requests wait while every runner that could serve them is full.
///
/// A slot that is freed is handed to the next waiter that can use it, on the thread that frees it and in the
/// [order of service](crate::ServiceOrder). No waiter sleeps on a free slot:
///
/// - Whoever enters looks once more, after it is counted; whoever frees a slot looks for those who are
///   counted after the slot is free. One of the two sees the other.
/// - One thread at a time hands out slots. One that finds another at it leaves word and goes, and the other
///   looks again: nobody waits in a `Drop`, and a balancer may reserve and drop as it likes.
/// - A slot that was handed to a waiter that has gone is dropped there, and so handed on.
/// - What changes without a bell (a breaker that lets somebody through again) is found out at the
///   next [look](QueuePolicy::look). The same goes, when the fleet changes, for waiters with
///   special wants behind [`QueuePolicy::VAIN`] others of their line that found nothing. A look asks as many
///   of these, those first who have not been asked for longest.
///
/// What a freed slot costs does not grow with the fleet: of its runners only the one that has freed it is
/// asked, besides what a pick looks at.
///
/// Made by the dispatcher.
pub struct AdmissionQueue<P: Picker> {
    policy: QueuePolicy,
    picker: P,
    observers: Vec<Arc<dyn Observer>>,
    bell: Arc<Bell>,
    baton: Baton,
    room: Mutex<Room<Seat<P>>>,
    /// As many as are in the room, for a look without the lock.
    waiting: AtomicUsize,
}

impl<P: Picker> AdmissionQueue<P> {
    /// How often one thread goes on to hand out what others freed meanwhile, before a waiter's task takes
    /// over.
    const TURNS: usize = 8;

    /// A queue that waits for runners of this bell and chooses with this picker. It tells the observers how
    /// each waiting ended.
    pub fn new(
        policy: QueuePolicy,
        bell: Arc<Bell>,
        picker: P,
        observers: Vec<Arc<dyn Observer>>,
    ) -> Arc<Self> {
        let queue = Arc::new(Self {
            policy,
            picker,
            observers,
            bell: bell.clone(),
            baton: Baton::new(),
            room: Mutex::new(Room::new(policy)),
            waiting: AtomicUsize::new(0),
        });
        let listener: Weak<Self> = Arc::downgrade(&queue);
        bell.listen(listener);
        queue
    }

    /// Waits until a slot is handed over, or until patience, time or hope is at an end. Looks for one itself
    /// before it waits.
    ///
    /// **Cancel safe.** Dropping the future gives up the place at once; a slot that had been handed over
    /// goes to the next.
    pub async fn wait(&self, waiter: Waiter<P::Wants>) -> Result<P::Choice, QueueError> {
        // Counted before the look, and until the place is given up: see `Bell::wait`.
        let _counted = self.bell.wait();
        let mut place = self.enter(waiter)?;
        self.serve();
        place.wait().await
    }

    fn enter(&self, waiter: Waiter<P::Wants>) -> Result<Place<'_, P>, QueueError> {
        let since = Instant::now();
        let Waiter { wants, model, special, tenant, priority, patience, until } = waiter;
        let who = Who { queue: self, model: model.clone(), tenant: tenant.clone(), priority, since };
        let patience = since.checked_add(patience.unwrap_or(self.policy.patience));
        let end = patience.into_iter().chain(until).min();
        let arrival = Arrival { model, tenant, priority, special };
        let (hand, handed) = oneshot::channel();
        // Held on to, so that what is refused is not dropped under the lock: it is not ours.
        let wants = Arc::new(wants);
        let seat = Seat { wants: wants.clone(), hand };
        let entered = {
            let mut room = self.room();
            let entered = room.enter(arrival, since, seat);
            self.waiting.store(room.order.len(), Ordering::SeqCst);
            entered
        };
        match entered {
            Ok(seated) => Ok(Place::new(who, seated, handed, end)),
            Err(full) => {
                let kind = QueueErrorKind::from(full);
                let retry_after = self.retry_after(&who.model);
                who.tell(kind.into());
                Err(QueueError { kind, retry_after, waited: Duration::ZERO })
            }
        }
    }

    /// Whether somebody waits who has a better claim to a free slot than a newcomer of this kind; then the
    /// newcomer is to [wait](AdmissionQueue::wait) too, which costs it nothing if a slot is free. One read
    /// while nobody waits at all.
    pub fn has_waiters(&self, model: &Option<ModelId>, special: bool) -> bool {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let room = self.room();
        let (all, plain) = room.order.lane(model).map_or((0, 0), |lane| room.order.waiting(lane));
        // A slot that special waiters left free is of no use to them.
        if special { all > 0 } else { plain > 0 }
    }

    /// How many wait.
    pub fn depth(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// How many wait that came with this class.
    pub fn depth_of(&self, priority: Priority) -> usize {
        self.room().order.asked(priority)
    }

    /// What is to be seen of the queue now. Holds the lock for one pass over the waiters.
    pub fn report(&self) -> QueueReport {
        self.room().report(self.policy.max_waiting, Instant::now())
    }

    /// How many may wait, and how long.
    pub fn policy(&self) -> &QueuePolicy {
        &self.policy
    }

    /// Held for a few steps in memory only. Nothing is called under it that could come back, so taking it is
    /// no wait, not even in a `Drop`.
    fn room(&self) -> MutexGuard<'_, Room<Seat<P>>> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out what is free in the lanes that were stirred, or leaves it to the thread that is at it.
    pub(super) fn serve(&self) {
        // A picker that panics while its thread panics already would end the process.
        let can_serve = !std::thread::panicking();
        if !can_serve || self.baton.ring(Self::TURNS, || self.serve_once()) == Rung::Unfinished {
            let deputy = self.room().deputy();
            deputy.inspect(|deputy| deputy.notify_one());
        }
    }

    /// One round.
    fn serve_once(&self) {
        let now = Instant::now();
        let me = std::thread::current().id();
        let (mut round, stirred) = self.room().begin(now);
        let picking = Picking { queue: self };
        // A thorough round has no end of its own.
        let mut at_large = if stirred.thorough { QueuePolicy::VAIN } else { usize::MAX };
        loop {
            let next = self.room().next(&mut round, me).map(|(ticket, seat)| (ticket, seat.wants.clone()));
            let Some((ticket, wants)) = next else { break };
            if !self.is_asked(&round, &stirred, ticket, &wants, &mut at_large) {
                round.pass_over();
                continue;
            }
            let (choice, is_choosy) = self.pick(&round, &stirred, &wants);
            if let Some((lane, true)) = round.named().filter(|_| choice.is_none()) {
                self.room().asked(lane, ticket);
            }
            match choice {
                Some(choice) => {
                    let gone = self.take_out(|room| {
                        room.picked();
                        room.serve(ticket, now)
                    });
                    // If nobody takes it any more it is dropped here, which rings.
                    if let Some(mut gone) = gone {
                        gone.wake_heir();
                        drop(gone.seat.hand.send(Ok(choice)));
                    }
                }
                None if stirred.thorough && self.picker.is_hopeless(&wants) => {
                    if let Some(mut gone) = self.leave(ticket) {
                        gone.wake_heir();
                        drop(gone.seat.hand.send(Err(Hopeless)));
                    }
                }
                None if is_choosy => round.refused_alone(),
                None => round.refused(),
            }
        }
        drop(picking);
    }

    /// What the picker finds for the waiter that is next in this round; if nothing, whether others like it may
    /// have more luck.
    fn pick(&self, round: &Round, stirred: &Stirred, wants: &P::Wants) -> (Option<P::Choice>, bool) {
        let is_special = round.named().is_some_and(|(_, special)| special);
        let choice = self.picker.pick(wants);
        if choice.is_some() || is_special || self.is_full(round, stirred, wants) {
            return (choice, false);
        }
        // A slot may have been freed between the two questions: then it is for the first in line.
        (self.picker.pick(wants), true)
    }

    /// Whether there is nothing for other plain ones either. The whole fleet is gone through only if anybody
    /// in it may have something new.
    fn is_full(&self, round: &Round, stirred: &Stirred, wants: &P::Wants) -> bool {
        let cause = round.named().and_then(|(lane, _)| stirred.lanes.get(&lane));
        match cause.filter(|cause| cause.is_named() && !stirred.thorough) {
            Some(cause) => !self.is_any_freed_for(cause, wants),
            None => self.picker.is_full(wants),
        }
    }

    fn is_any_freed_for(&self, cause: &Cause, wants: &P::Wants) -> bool {
        cause.freed.iter().any(|runner| self.picker.may_serve(wants, runner))
    }

    /// Whether there may be something for the waiter that is next in this round. Of those for whom it is no
    /// more than a chance, so many are asked.
    fn is_asked(
        &self,
        round: &Round,
        stirred: &Stirred,
        ticket: Ticket,
        wants: &P::Wants,
        at_large: &mut usize,
    ) -> bool {
        let Some((lane, true)) = round.named() else { return true };
        let Some(cause) = stirred.lanes.get(&lane) else { return true };
        if cause.due.contains(&ticket) || cause.came.contains(&ticket) || self.is_any_freed_for(cause, wants)
        {
            return true;
        }
        let is_asked = cause.any && *at_large > 0;
        *at_large -= usize::from(is_asked);
        is_asked
    }

    fn take_out(
        &self,
        take: impl FnOnce(&mut Room<Seat<P>>) -> Option<Gone<Seat<P>>>,
    ) -> Option<Gone<Seat<P>>> {
        let mut room = self.room();
        let gone = take(&mut room)?;
        self.waiting.store(room.order.len(), Ordering::SeqCst);
        Some(gone)
    }

    pub(super) fn leave(&self, ticket: Ticket) -> Option<Gone<Seat<P>>> {
        self.take_out(|room| room.leave(ticket))
    }

    /// Looks again for a whole lane if that is due, and says when to come back.
    pub(super) fn look(&self, seated: &Seated) -> Option<Instant> {
        let (is_due, next) = self.room().look(seated.lane, seated.ticket, Instant::now());
        if is_due {
            self.serve();
        }
        next
    }

    /// Takes over the watch of a lane if nobody has it, and says when to look.
    pub(super) fn watch(&self, seated: &Seated) -> Option<Instant> {
        self.room().watch(seated.lane, seated.ticket, Instant::now())
    }

    pub(super) fn retry_after(&self, model: &Option<ModelId>) -> Duration {
        self.room().retry_after(model, Instant::now())
    }

    pub(super) fn tell(&self, waited: &Waited<'_>) {
        for observer in &self.observers {
            observer.waited(waited);
        }
    }

    fn stir(&self, freed: Option<&Arc<Runner>>) {
        let lanes: Vec<_> = {
            let room = self.room();
            room.order.lanes().map(|(id, model)| (id, model.cloned())).collect()
        };
        // Asked without the lock: the picker is not ours.
        let is_concerned = |model: &Option<ModelId>| match (freed, model) {
            (Some(runner), Some(model)) => self.picker.concerns(model, runner),
            _ => true,
        };
        let lanes = lanes.into_iter().filter(|(_, model)| is_concerned(model)).map(|(id, _)| id);
        let lanes: Vec<_> = lanes.collect();
        if lanes.is_empty() {
            return;
        }
        let is_news = self.room().stir(lanes, freed, std::thread::current().id());
        if is_news {
            self.serve();
        }
    }
}

/// Ends a round, also one in which the picker panicked. Whoever was not asked is at the next look.
struct Picking<'a, P: Picker> {
    queue: &'a AdmissionQueue<P>,
}

impl<P: Picker> Drop for Picking<'_, P> {
    fn drop(&mut self) {
        self.queue.room().picked();
    }
}

impl<P: Picker> Listener for AdmissionQueue<P> {
    fn slot_freed(&self, runner: &Arc<Runner>) {
        self.stir(Some(runner));
    }

    fn fleet_changed(&self) {
        self.stir(None);
    }
}

impl<P: Picker> fmt::Debug for AdmissionQueue<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdmissionQueue")
            .field("policy", &self.policy)
            .field("waiting", &self.depth())
            .finish_non_exhaustive()
    }
}
