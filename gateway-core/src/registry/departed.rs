//! Who left a short while ago: if such a one joins again, it came back, and starts slowly.

use std::collections::{HashMap, VecDeque};
use std::sync::Weak;
use std::time::Duration;

use tokio::time::Instant;

use crate::names::RunnerId;
use crate::runner::Ledger;

#[derive(Debug, Default)]
pub(super) struct Departed {
    /// When each left last, and what requests of ours were still using of its machine.
    left: HashMap<RunnerId, (Instant, Weak<Ledger>)>,
    /// Departures in order. One that is not the last of its runner means nothing any more.
    order: VecDeque<(Instant, RunnerId)>,
}

impl Departed {
    /// How many departures are remembered; the oldest are forgotten first.
    pub(super) const MOST: usize = 4096;
    /// For how long. A machine that was away for longer is as good as new: so are its caches, and so is the
    /// fleet around it.
    pub(super) const LONGEST: Duration = Duration::from_secs(600);

    /// Remembers that a runner left.
    pub(super) fn add(&mut self, id: RunnerId, ledger: Weak<Ledger>, now: Instant) {
        self.order.push_back((now, id.clone()));
        self.left.insert(id, (now, ledger));
        self.forget(now);
    }

    /// Its ledger, dead or alive, if it left a short while ago. Forgets it.
    pub(super) fn take(&mut self, id: &RunnerId, now: Instant) -> Option<Weak<Ledger>> {
        self.forget(now);
        self.left.remove(id).map(|(_, ledger)| ledger)
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, id)) = self.order.front() {
            let old = now.saturating_duration_since(*at) >= Self::LONGEST;
            if !old && self.order.len() <= Self::MOST {
                return;
            }
            if self.left.get(id).is_some_and(|(left, _)| left == at) {
                self.left.remove(id);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> RunnerId {
        RunnerId::new(format!("r{number}")).unwrap()
    }

    #[test]
    fn who_left_is_known_once_and_not_for_ever() {
        let (mut departed, now) = (Departed::default(), Instant::now());
        assert!(departed.take(&id(0), now).is_none());
        departed.add(id(0), Weak::new(), now);
        departed.add(id(1), Weak::new(), now);
        assert!(departed.take(&id(0), now).is_some() && departed.take(&id(0), now).is_none());
        departed.add(id(0), Weak::new(), now + Departed::LONGEST / 2);
        assert!(departed.take(&id(1), now + Departed::LONGEST).is_none());
        assert!(departed.take(&id(0), now + Departed::LONGEST).is_some(), "it left again, later");
        assert!(departed.left.is_empty() && departed.order.len() <= 1);
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let (mut departed, now) = (Departed::default(), Instant::now());
        for number in 0..Departed::MOST + 10 {
            departed.add(id(number), Weak::new(), now);
        }
        assert_eq!((departed.left.len(), departed.order.len()), (Departed::MOST, Departed::MOST));
        assert!(departed.take(&id(9), now).is_none() && departed.take(&id(10), now).is_some());
    }
}
