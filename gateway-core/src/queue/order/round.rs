//! One walk through the waiters in the order of service.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::lane::{Lane, Open, Place, Turn};
use super::{LaneId, ServiceOrder, Ticket};
use crate::queue::Priority;

/// One walk through the waiters of some lanes in the order of service, in which each is offered what is
/// free. Made by [`ServiceOrder::round`].
///
/// It knows what was refused so far: once a plain waiter of a lane got nothing because all is taken, the other
/// plain ones of the lane are passed over, for they want the same. Waiters with special wants are asked one
/// by one, so that none of them stands in another's way.
#[derive(Debug)]
pub struct Round {
    /// Lanes by whose turn it is. May be outdated; found out when the lane comes up.
    lanes: BinaryHeap<Reverse<(Priority, Turn, LaneId)>>,
    walks: HashMap<LaneId, Walk>,
    now: Option<Offered>,
}

#[derive(Debug, Clone, Copy)]
struct Walk {
    class: Priority,
    from: Place,
    plain: bool,
    /// How many may yet be asked in vain, each for itself.
    vain: usize,
}

#[derive(Debug, Clone, Copy)]
struct Offered {
    lane: LaneId,
    place: Place,
    special: bool,
}

impl Round {
    pub(super) fn new(lanes: impl Iterator<Item = LaneId>, vain: usize) -> Self {
        let mut round = Self { lanes: BinaryHeap::new(), walks: HashMap::new(), now: None };
        for lane in lanes {
            let walk = Walk { class: Priority::High, from: Place::default(), plain: true, vain };
            if round.walks.insert(lane, walk).is_none() {
                // As early as can be: where it really stands is found out when it comes up.
                round.lanes.push(Reverse((Priority::High, 0, lane)));
            }
        }
        round
    }

    /// The waiter that was named last got nothing, and if it is a plain one, then no other of its lane would.
    pub fn refused(&mut self) {
        match self.now {
            Some(Offered { lane, special: false, .. }) => {
                if let Some(walk) = self.walks.get_mut(&lane) {
                    walk.plain = false;
                }
            }
            _ => self.refused_alone(),
        }
    }

    /// The waiter that was named last got nothing, for a reason of its own: another may.
    pub fn refused_alone(&mut self) {
        self.pass_over();
        let Some(offered) = self.now else { return };
        if let Some(walk) = self.walks.get_mut(&offered.lane) {
            walk.vain = walk.vain.saturating_sub(1);
            walk.plain &= offered.special || walk.vain > 0;
        }
    }

    /// The waiter that was named last need not be asked: nothing has become free for it.
    pub fn pass_over(&mut self) {
        let Some(offered) = self.now else { return };
        if let Some(walk) = self.walks.get_mut(&offered.lane) {
            walk.from = offered.place;
        }
    }

    /// The lane of the waiter that was named last, and whether that one is special.
    pub fn named(&self) -> Option<(LaneId, bool)> {
        self.now.map(|offered| (offered.lane, offered.special))
    }

    pub(super) fn next<T>(&mut self, order: &ServiceOrder<T>) -> Option<Ticket> {
        if let Some(offered) = self.now.take() {
            self.queue_up(order, offered.lane);
        }
        loop {
            let Reverse((class, turn, id)) = self.lanes.pop()?;
            let (Some(lane), Some(walk)) = (order.lanes.get(&id), self.walks.get_mut(&id)) else { continue };
            let open = Open { plain: walk.plain, special: walk.vain > 0 };
            let Some((found, place, special)) = walk.step(lane, open) else { continue };
            let at = (found, lane.class(found).turn);
            if at != (class, turn) {
                self.lanes.push(Reverse((at.0, at.1, id)));
                continue;
            }
            self.now = Some(Offered { lane: id, place, special });
            return Some(place.ticket);
        }
    }

    fn queue_up<T>(&mut self, order: &ServiceOrder<T>, id: LaneId) {
        let (Some(lane), Some(walk)) = (order.lanes.get(&id), self.walks.get(&id)) else { return };
        self.lanes.push(Reverse((walk.class, lane.class(walk.class).turn, id)));
    }
}

impl Walk {
    /// The lane's next waiter; goes on to the next class where one is through.
    fn step(&mut self, lane: &Lane, open: Open) -> Option<(Priority, Place, bool)> {
        let classes = Priority::ALL.into_iter().filter(|class| *class >= self.class);
        for class in classes {
            let from = if class == self.class { self.from } else { Place::default() };
            if let Some((place, special)) = lane.class(class).next(from, open) {
                (self.class, self.from) = (class, from);
                return Some((class, place, special));
            }
        }
        None
    }
}
