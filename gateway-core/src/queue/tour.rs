//! Whom of those with special wants a look asks: a few, those first who have not been asked for longest.

use std::collections::{BTreeSet, HashMap};

use super::order::Ticket;

/// The special waiters of one lane by when they were last asked. Holds who waits, and nobody else.
#[derive(Debug, Default)]
pub(super) struct Tour {
    last: u64,
    asked: HashMap<Ticket, u64>,
    by_turn: BTreeSet<(u64, Ticket)>,
}

impl Tour {
    /// Somebody came, and is asked for that.
    pub(super) fn came(&mut self, ticket: Ticket) {
        self.gone(ticket);
        self.last += 1;
        self.asked.insert(ticket, self.last);
        self.by_turn.insert((self.last, ticket));
    }

    /// Somebody was asked, if it still waits.
    pub(super) fn asked(&mut self, ticket: Ticket) {
        if self.asked.contains_key(&ticket) {
            self.came(ticket);
        }
    }

    pub(super) fn gone(&mut self, ticket: Ticket) {
        if let Some(turn) = self.asked.remove(&ticket) {
            self.by_turn.remove(&(turn, ticket));
        }
    }

    /// So many who have not been asked for longest.
    pub(super) fn due(&self, most: usize) -> impl Iterator<Item = Ticket> {
        self.by_turn.iter().take(most).map(|(_, ticket)| *ticket)
    }
}
